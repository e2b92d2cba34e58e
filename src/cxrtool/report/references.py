"""Sources that a methods paragraph cites."""

REFERENCES = {
    "altman": "Altman DG, Bland JM. Diagnostic tests 2: predictive values. BMJ 1994;309:102.",
    "brier": "Brier GW. Verification of forecasts expressed in terms of probability. Mon Weather Rev 1950;78:1-3.",
    "davison": "Davison AC, Hinkley DV. Bootstrap Methods and their Application. Cambridge University Press, 1997.",
    "delong": "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver "
    "operating characteristic curves: a nonparametric approach. Biometrics 1988;44:837-845.",
    "efron": "Efron B, Tibshirani RJ. An Introduction to the Bootstrap. Chapman and Hall, 1993.",
    "guo": "Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML 2017;70:1321-1330.",
    "hanley": "Hanley JA, McNeil BJ. The meaning and use of the area under a receiver operating characteristic (ROC) "
    "curve. Radiology 1982;143:29-36.",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.",
    "huang": "Huang G, Liu Z, van der Maaten L, Weinberger KQ. Densely connected convolutional networks. "
    "CVPR 2017:4700-4708.",
    "irvin": "Irvin J, Rajpurkar P, Ko M, et al. CheXpert: a large chest radiograph dataset with uncertainty labels "
    "and expert comparison. AAAI 2019;33:590-597.",
    "newcombe": "Newcombe RG. Confidence intervals for an effect size measure based on the Mann-Whitney statistic. "
    "Part 2: asymptotic methods and evaluation. Stat Med 2006;25:559-573.",
    "platt": "Platt JC. Probabilistic outputs for support vector machines and comparisons to regularized likelihood "
    "methods. In: Advances in Large Margin Classifiers. MIT Press, 1999:61-74.",
    "vickers": "Vickers AJ, Elkin EB. Decision curve analysis: a novel method for evaluating prediction models. "
    "Med Decis Making 2006;26:565-574.",
    "wilson": "Wilson EB. Probable inference, the law of succession, and statistical inference. "
    "J Am Stat Assoc 1927;22:209-212.",
}
"""By the name that texts cite them by."""

INTERVALS = {
    "percentile": ("the percentile bootstrap over patients", "efron"),
    "delong": ("DeLong's method, which takes rows as independent", "delong"),
    "newcombe": ("Newcombe's score method", "newcombe"),
    "wilson": ("Wilson's score method", "wilson"),
}
"""Description and source of interval methods, by a word that the name of the method contains."""


class Citations:
    """Numbers sources in the order in which they are first cited."""

    def __init__(self, shown: bool = True) -> None:
        self._cited: list[str] = []
        self._shown = shown

    def __call__(self, *names: str) -> str:
        """Return `` [1]`` or `` [1, 3]`` for sources in `REFERENCES`; nothing if numbers are not shown."""
        if not self._shown:
            return ""
        self._cited += [name for name in names if name not in self._cited]
        return f" [{', '.join(str(self._cited.index(name) + 1) for name in names)}]"

    @property
    def cited(self) -> list[str]:
        """The sources, in the order of their numbers."""
        return [REFERENCES[name] for name in self._cited]
