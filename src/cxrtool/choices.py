"""Allowed values of options, defined once for the settings, the command line and the documentation."""

from enum import StrEnum


class Views(StrEnum):
    """Which radiographs of a sheet are used."""

    FRONTAL = "frontal"
    ALL = "all"


class Level(StrEnum):
    """Unit of one row of a prediction table: an image, or a study with the maximum over its images."""

    IMAGE = "image"
    STUDY = "study"


class Criterion(StrEnum):
    """Figure that a tuned threshold maximises or must reach."""

    F1 = "f1"
    BALANCED_ACCURACY = "balanced-accuracy"
    YOUDEN = "youden"
    RECALL = "recall"
    SPECIFICITY = "specificity"


class Device(StrEnum):
    """Where the network runs; ``auto`` uses a GPU if there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Backend(StrEnum):
    """Library that runs the network outside training; in predict, ``auto`` prefers an export beside the bundle."""

    AUTO = "auto"
    TORCH = "torch"
    ONNX = "onnx"
    OPENVINO = "openvino"


class ExportFormat(StrEnum):
    """File format of an exported network."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH_EXPORT = "torch-export"


class Precision(StrEnum):
    """Number format of convolutions; ``auto`` uses bf16 where it is faster and, in predict, close enough to fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


class TorchPrecision(StrEnum):
    """The values of `Precision` that PyTorch runs; int8 is OpenVINO's."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class MatmulPrecision(StrEnum):
    """Precision of float32 matrix products, as in ``torch.set_float32_matmul_precision``."""

    HIGHEST = "highest"
    HIGH = "high"
    MEDIUM = "medium"


class Fit(StrEnum):
    """How an image that is not square fills the network's input: stretched, cropped to its centre, or padded with 0."""

    STRETCH = "stretch"
    CROP = "crop"
    PAD = "pad"


class OptimizerName(StrEnum):
    """Optimizer: Adam (Kingma & Ba 2015), or AdamW with decoupled weight decay (Loshchilov & Hutter 2019)."""

    ADAM = "adam"
    ADAMW = "adamw"


class SelectBy(StrEnum):
    """Figure on the valid split that chooses the best epoch."""

    AUROC = "auroc"
    LOSS = "loss"


class CalibrationMethod(StrEnum):
    """How raw probabilities are calibrated, per finding: with a slope, or with a slope and an intercept."""

    TEMPERATURE = "temperature"
    PLATT = "platt"


class MistakeKind(StrEnum):
    """Kind of wrong decision."""

    BOTH = "both"
    FALSE_POSITIVE = "false-positive"
    FALSE_NEGATIVE = "false-negative"


class Layer(StrEnum):
    """A dense block of the network. Its maps have 1/8, 1/16 or 1/32 of the image's side."""

    DENSEBLOCK2 = "denseblock2"
    DENSEBLOCK3 = "denseblock3"
    DENSEBLOCK4 = "denseblock4"


class Method(StrEnum):
    """How a heatmap is computed; docs/explain.md compares the methods."""

    GRAD_CAM = "grad-cam"
    GRAD_CAM_PLUS_PLUS = "grad-cam++"
    LAYER_CAM = "layer-cam"
    SCORE_CAM = "score-cam"
    INTEGRATED_GRADIENTS = "integrated-gradients"
    OCCLUSION = "occlusion"


class FigureFormat(StrEnum):
    """File format of a figure of a heatmap: PNG for the screen, PDF or SVG for print."""

    PNG = "png"
    PDF = "pdf"
    SVG = "svg"


class Policy(StrEnum):
    """What an uncertain label (-1) becomes in training."""

    U_IGNORE = "u-ignore"
    U_ONES = "u-ones"
    U_ZEROS = "u-zeros"


class Blank(StrEnum):
    """What a blank label (finding not mentioned in the report) becomes."""

    NEGATIVE = "negative"
    IGNORE = "ignore"


class LayoutName(StrEnum):
    """Public data set whose files a data folder holds; docs/data.md describes each."""

    AUTO = "auto"
    CHEXPERT = "chexpert"
    CHEXPERT_BATCHES = "chexpert-batches"
    CHEXPERT_PLUS = "chexpert-plus"
    MIMIC = "mimic"
    MIMIC_NEGBIO = "mimic-negbio"
    NIH = "nih"
    PADCHEST = "padchest"
    VINDR = "vindr"
