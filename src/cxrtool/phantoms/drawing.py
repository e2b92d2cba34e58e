"""Drawing of one synthetic frontal radiograph: first the anatomy, then findings, then the film.

Lengths are fractions of the image's side, measured from the upper left. The patient's right is on the image's left.
Brightness is a density from 0 (air) to 1 (bone over soft tissue); densities add up, as X-ray shadows do.

It is longer than other files: anatomy, findings, devices and film share the canvas and the measures of one picture, and
the file is read from top to bottom as the picture is drawn.
"""

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.findings import FINDINGS

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
LATERAL_SIDES = (-1, 1)
_SUBPIXEL = 4  # fractional bits of coordinates in OpenCV's drawing functions
_HEART_DENSITY = np.float32(0.3)  # along the longest path through a heart as wide as the thorax
_COARSE_BLUR, _MIDDLE_BLUR = 0.01, 0.004
_DRAWN_AT = 192  # pixels; smaller radiographs are drawn with at least so many and averaged, as a detector does
_HALF = 0.5  # share of a pixel that a region covers at least
_NORMAL_LEVELS = np.array([NormalDist().inv_cdf((level + 0.5) / 256) for level in range(256)], dtype=np.float32)


@dataclass(frozen=True)
class Anatomy:
    """A patient's build.

    Attributes:
        female: whether breast shadows are drawn.
        centre: x of the spine.
        half_thorax: half of the largest inner width of the thorax.
        apex: y of the lungs' tips.
        base: y of the costophrenic angles.
        dome: height of the diaphragm's dome above `base`.
        ribs: number of posterior rib pairs.
        tilt: tilt of the heart in degrees.
        shift: shift of the heart's centre to the patient's left, in heart widths.
    """

    female: bool
    centre: float
    half_thorax: float
    apex: float
    base: float
    dome: float
    ribs: int
    tilt: float
    shift: float


@dataclass(frozen=True)
class Case:
    """Content of a study, the same in all its frontal views.

    Attributes:
        severities: severity in (0, 1] of each positive finding.
        sides: lungs that each positive finding affects (`affected_sides`).
        projection: ``AP`` (lying: larger heart, higher diaphragm, shoulder blades over the lungs) or ``PA``.
        device: one of `DEVICES`.
    """

    severities: dict[str, float]
    sides: dict[str, tuple[int, ...]]
    projection: str
    device: str = ""


@dataclass(frozen=True)
class Phantom:
    """A drawn radiograph and its truth.

    Attributes:
        image: [S, S] uint8.
        masks: region of each positive finding, [S, S] bool.
        cardiothoracic_ratio: largest width of the heart divided by the inner width of the thorax, as drawn.
        heart: region of the heart, [S, S] bool.
    """

    image: NDArray[np.uint8]
    masks: dict[str, Mask]
    cardiothoracic_ratio: float
    heart: Mask


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient's build from `rng`."""
    return Anatomy(
        female=bool(rng.random() < 0.45),
        centre=float(rng.uniform(0.47, 0.53)),
        half_thorax=float(rng.uniform(0.315, 0.39)),
        apex=float(rng.uniform(0.10, 0.14)),
        base=float(rng.uniform(0.81, 0.87)),
        dome=float(rng.uniform(0.09, 0.13)),
        ribs=int(rng.integers(8, 10)),
        tilt=float(rng.uniform(28, 42)),
        shift=float(rng.uniform(0.12, 0.21)),
    )


def draw_frontal(anatomy: Anatomy, case: Case, size: int, rng: np.random.Generator) -> Phantom:
    """Draw one frontal radiograph.

    Args:
        anatomy: build of the patient.
        case: content of the study.
        size: width and height in pixels.
        rng: source of everything that varies between films.
    """
    severities, sides = case.severities, case.sides
    fine = size * max(1, -(-_DRAWN_AT // size))
    canvas = _Canvas(fine)
    lying = case.projection == "AP"
    lungs = {
        side: _lung_outline(anatomy, side, lying, _diaphragm_lift(side, sides, severities)) for side in LATERAL_SIDES
    }
    ratio = _cardiothoracic_ratio(severities.get("Cardiomegaly"), lying, rng)
    density = _soft_tissue(canvas, anatomy)
    lung_field = canvas.fill(list(lungs.values()), blur=0.006)
    heart, heart_shape, depth = _heart(canvas, anatomy, ratio, lungs)
    # Air darkens the image, the heart displaces air, and findings show only where there is air.
    air = lung_field * (1 - 0.82 * heart)
    clear = -0.40 + 0.02 * float(rng.standard_normal())
    in_lungs = _vessels(canvas, anatomy, severities.get("Edema", 0.0), rng) + np.float32(clear)
    density += _mediastinum(canvas, anatomy)
    density += _bones(canvas, anatomy, lying, rng)
    if anatomy.female:
        density += _breasts(canvas, anatomy, rng)
    masks: dict[str, Mask] = {}
    inner = lung_field > 0.5
    for finding, painter in _PAINTERS.items():
        if finding in severities:
            shadow, mask = painter(canvas, anatomy, lungs, sides.get(finding, (1,)), severities[finding], rng)
            in_lungs += shadow
            masks[finding] = mask & inner
    if "Pleural Effusion" in masks:
        masks["Pleural Effusion"] = _down_to_base(masks["Pleural Effusion"], lungs, fine)
    if "Cardiomegaly" in severities:
        masks["Cardiomegaly"] = heart_shape
    density += in_lungs * air
    density += depth
    if case.device:
        density += _DEVICES[case.device](canvas, anatomy)
    image = _expose(_averaged(density, size), lying, rng)
    _write_marker(image, rng)
    ordered = {finding: _averaged(masks[finding], size) >= _HALF for finding in FINDINGS if finding in masks}
    return Phantom(image, ordered, ratio, _averaged(heart_shape, size) >= _HALF)


def _averaged(field: Field | Mask, size: int) -> Field:
    """Return a square field as [size, size], each pixel the mean of the area that it covers."""
    wide = field.astype(np.float32, copy=False)
    if len(wide) == size:
        return wide
    return cv2.resize(wide, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)


def draw_lateral(anatomy: Anatomy, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a crude lateral view, [S, S] uint8, for sheets that contain lateral views."""
    canvas = _Canvas(size)
    density = 0.55 * canvas.ellipses([((0.5, 0.55), (0.36, 0.52), 0)], blur=0.02)
    density -= 0.35 * canvas.ellipses([((0.46, 0.45), (0.24, 0.33), 12)], blur=0.02)
    density += 0.25 * canvas.ellipses([((0.36, 0.6), (0.12, 0.14), 30)], blur=0.02)
    spine = np.array([[0.70, 0.08], [0.74, 0.4], [0.70, 0.95]])
    density += 0.2 * canvas.lines([spine], 0.07, blur=0.01)
    return _expose(density + 0.02 * np.float32(anatomy.dome), True, rng)


class _Canvas:
    """Draws shapes, given in fractions of the side, as fields [S, S] from 0 to 1 with soft edges."""

    def __init__(self, size: int) -> None:
        self.size = size
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = axis[None, :], axis[:, None]

    def fill(self, polygons: list[NDArray[np.float64]], blur: float = 0.0, weight: float = 1.0) -> Field:
        field, scale = self._blank(blur)
        for polygon in polygons:
            cv2.fillPoly(field, [self._points(polygon, scale)], 255, cv2.LINE_8, _SUBPIXEL)
        return self._soften(field, blur, weight)

    def lines(self, paths: list[NDArray[np.float64]], width: float, blur: float = 0.0, weight: float = 1.0) -> Field:
        """Draw paths with equal numbers of points, [P, 2] each."""
        field, scale = self._blank(min(blur, _MIDDLE_BLUR))
        thickness = max(1, round(width * scale))
        points = list(self._points(np.stack(paths), scale))
        cv2.polylines(field, points, False, 255, thickness, cv2.LINE_8, _SUBPIXEL)
        return self._soften(field, blur, weight)

    def _blank(self, blur: float) -> tuple[NDArray[np.uint8], int]:
        # Blurred shapes are drawn at half or a quarter of the size, at a fourth or a sixteenth of the cost.
        shrink = 4 if blur >= _COARSE_BLUR else 2 if blur >= _MIDDLE_BLUR else 1
        scale = max(min(80, self.size), self.size // shrink)
        return np.zeros((scale, scale), dtype=np.uint8), scale

    def ellipses(
        self,
        shapes: list[tuple[tuple[float, float], tuple[float, float], float]],
        blur: float = 0.0,
        weight: float = 1.0,
    ) -> Field:
        """Draw ellipses, given as (centre, half axes, rotation in degrees)."""
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        outlines = []
        for (x, y), (a, b), degrees in shapes:
            turn = np.deg2rad(degrees)
            along, across = a * np.cos(angles), b * np.sin(angles)
            outlines.append(
                np.column_stack(
                    (
                        x + along * np.cos(turn) - across * np.sin(turn),
                        y + along * np.sin(turn) + across * np.cos(turn),
                    )
                )
            )
        return self.fill(outlines, blur, weight)

    def ellipsoid(self, centre: tuple[float, float], axes: tuple[float, float], degrees: float) -> Field:
        """Return the relative length of a beam's path through an ellipsoid: 1 in the middle, 0 outside."""
        turn = np.deg2rad(degrees)
        right, down = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        along = right * np.float32(np.cos(turn) / axes[0]) + down * np.float32(np.sin(turn) / axes[0])
        across = down * np.float32(np.cos(turn) / axes[1]) - right * np.float32(np.sin(turn) / axes[1])
        return np.sqrt(np.clip(1 - along**2 - across**2, 0, None)).astype(np.float32, copy=False)

    def glow(self, x: float, y: float, spread_x: float, spread_y: float) -> Field:
        """Return a two-dimensional Gaussian with a peak of 1."""
        across: Field = np.exp(-0.5 * ((self.x - x) / spread_x) ** 2)
        down: Field = np.exp(-0.5 * ((self.y - y) / spread_y) ** 2)
        return across * down

    def _soften(self, field: NDArray[np.uint8], blur: float, weight: float) -> Field:
        # OpenCV blurs uint8 several times as fast as float32, and 1/255 is below the film's noise.
        if blur > 0:
            field = cv2.GaussianBlur(field, (0, 0), max(0.4, blur * field.shape[0])).astype(np.uint8, copy=False)
        soft = field * np.float32(weight / 255)
        if field.shape[0] != self.size:
            soft = cv2.resize(soft, (self.size, self.size), interpolation=cv2.INTER_LINEAR).astype(
                np.float32, copy=False
            )
        return soft

    def _points(self, path: NDArray[np.float64], scale: int) -> NDArray[np.int32]:
        points: NDArray[np.int32] = np.round((path * scale - 0.5) * 2**_SUBPIXEL).astype(np.int32)
        return points


def affected_sides(severities: dict[str, float], rng: np.random.Generator) -> dict[str, tuple[int, ...]]:
    """Draw the lungs that each finding affects. All are drawn always, so that findings do not depend on each other."""
    one = {finding: int(rng.choice(LATERAL_SIDES)) for finding in FINDINGS}
    both = rng.random() < 0.35
    sides: dict[str, tuple[int, ...]] = {finding: (side,) for finding, side in one.items()}
    if both:
        sides["Pleural Effusion"] = LATERAL_SIDES
    sides["Edema"] = LATERAL_SIDES
    return {finding: sides[finding] for finding in severities}


def _diaphragm_lift(side: int, sides: dict[str, tuple[int, ...]], severities: dict[str, float]) -> float:
    """Return how far volume loss lifts the diaphragm on this side; plate atelectasis loses little volume."""
    if side not in sides.get("Atelectasis", ()):
        return 0.0
    return 0.01 + 0.03 * severities["Atelectasis"]


def _lung_outline(anatomy: Anatomy, side: int, lying: bool, lift: float) -> NDArray[np.float64]:
    """Return the outline of a lung; side -1 is the patient's right, where the diaphragm is higher."""
    base = anatomy.base - (0.05 if lying else 0.0) - lift - (0.018 if side < 0 else 0.0)
    down = np.linspace(0, 1, 28)
    lateral_y = anatomy.apex + down * (base - anatomy.apex)
    width = anatomy.half_thorax * np.clip(1.06 * np.sin(np.pi * (0.12 + 0.45 * down)) ** 0.62, 0, 1)
    width[0] = anatomy.half_thorax * 0.42
    lateral = np.column_stack((anatomy.centre + side * width, lateral_y))
    inward = np.linspace(1, 0, 20)
    inner = 0.075
    floor_x = anatomy.centre + side * (inner + inward * (width[-1] - inner))
    floor_y = base - anatomy.dome * (1 - np.clip((inward - 0.38) / 0.62, -0.45, 1) ** 2)
    medial_y = np.linspace(floor_y[-1], anatomy.apex + 0.015, 12)
    medial = np.column_stack((np.full(12, anatomy.centre + side * inner), medial_y))
    return np.concatenate((lateral, np.column_stack((floor_x, floor_y)), medial))


def _soft_tissue(canvas: _Canvas, anatomy: Anatomy) -> Field:
    """Draw the body: neck, shoulders, trunk."""
    c, w = anatomy.centre, anatomy.half_thorax + 0.085
    right = np.array(
        [
            [0.09, -0.02],
            [0.1, 0.05],
            [0.2, 0.09],
            [w, 0.15],
            [w + 0.06, 0.3],
            [w + 0.015, 0.55],
            [w + 0.03, 1.02],
        ]
    )
    left = right[::-1] * (-1, 1)
    outline = np.concatenate((right, left))
    outline[:, 0] += c
    return canvas.fill([outline], 0.02, 0.60)


def _cardiothoracic_ratio(severity: float | None, lying: bool, rng: np.random.Generator) -> float:
    """Return a ratio above 0.515 with cardiomegaly, at most 0.485 without; lying (AP) films have larger ones."""
    drawn = float(rng.uniform())
    if severity is not None:
        return 0.515 + 0.135 * severity
    low, high = (0.41, 0.485) if lying else (0.37, 0.46)
    return low + (high - low) * drawn


def _heart(
    canvas: _Canvas, anatomy: Anatomy, ratio: float, lungs: dict[int, NDArray[np.float64]]
) -> tuple[Field, Mask, Field]:
    """Draw the heart, an ellipsoid tilted to the patient's left whose width is `ratio` times the thorax's.

    Returns:
        Its soft outline, its region, and its shadow, which is densest where the beam's path is longest. A dilated heart
        is larger in depth too, so it is denser and not only wider.
    """
    width = ratio * 2 * anatomy.half_thorax
    turn = np.deg2rad(anatomy.tilt)
    flatness = 0.78
    half = width / 2 / np.sqrt(np.cos(turn) ** 2 + (flatness * np.sin(turn)) ** 2)
    floor = min(outline[:, 1].max() for outline in lungs.values())
    half_height = half * np.sqrt(np.sin(turn) ** 2 + (flatness * np.cos(turn)) ** 2)
    centre = (anatomy.centre + anatomy.shift * width, floor - 0.055 - half_height * 0.72)
    shape = [(centre, (half, half * flatness), anatomy.tilt)]
    outline = canvas.ellipses(shape, 0.008)
    shadow = _HEART_DENSITY * np.float32(ratio) * canvas.ellipsoid(*shape[0])
    return outline, canvas.ellipses(shape) > 0.5, shadow


def _mediastinum(canvas: _Canvas, anatomy: Anatomy) -> Field:
    c = anatomy.centre
    band = np.array([[c - 0.055, 0.0], [c + 0.06, 0.0], [c + 0.075, 0.9], [c - 0.075, 0.9]])
    trachea = np.array([[c, -0.02], [c - 0.006, anatomy.apex + 0.2]])
    discs = 0.045 + 0.015 * np.cos(2 * np.pi * canvas.y / 0.055)
    shadow = canvas.lines([np.array([[c, 0.0], [c, 1.0]])], 0.075, 0.008)
    shadow *= discs
    shadow += canvas.fill([band], 0.012, 0.16)
    shadow += canvas.ellipses([((c + 0.075, anatomy.apex + 0.2), (0.045, 0.05), 0)], 0.01, 0.12)
    shadow -= canvas.lines([trachea], 0.035, 0.006, 0.09)
    return shadow


def _bones(canvas: _Canvas, anatomy: Anatomy, lying: bool, rng: np.random.Generator) -> Field:
    c, w = anatomy.centre, anatomy.half_thorax
    posterior, anterior, clavicles = [], [], []
    along = np.linspace(0, 1, 14)
    spacing = (anatomy.base - anatomy.apex) / (anatomy.ribs + 0.6)
    for side in LATERAL_SIDES:
        for rib in range(anatomy.ribs):
            top = anatomy.apex + 0.012 + spacing * rib
            reach = w * min(1.03, 0.62 + 0.15 * rib)
            x = c + side * (0.04 + (reach - 0.04) * along)
            posterior.append(np.column_stack((x, top - 0.03 * np.sin(np.pi * along * 0.8) + 0.085 * along**2.2)))
            fall = top + 0.10 + 0.15 * (1 - along) ** 1.5
            anterior.append(np.column_stack((c + side * (0.13 + (reach - 0.13) * along), fall)))
        tilt = rng.uniform(-0.01, 0.02)
        clavicles.append(
            np.column_stack(
                (
                    c + side * (0.045 + 0.31 * along),
                    anatomy.apex + 0.075 - 0.06 * along + tilt + 0.012 * np.sin(6 * along),
                )
            )
        )
    bones = canvas.lines(posterior, 0.02, 0.004, 0.085)
    bones += canvas.lines(anterior, 0.022, 0.006, 0.035)
    bones += canvas.lines(clavicles, 0.024, 0.005, 0.13)
    if lying:
        blades = [
            np.array([[c + s * (w - 0.09), 0.17], [c + s * (w + 0.06), 0.2], [c + s * (w - 0.02), 0.46]])
            for s in LATERAL_SIDES
        ]
        bones += canvas.fill(blades, 0.008, 0.06)
    return bones


def _vessels(canvas: _Canvas, anatomy: Anatomy, congestion: float, rng: np.random.Generator) -> Field:
    """Draw vessels that branch outwards from each hilum, thicker with congestion."""
    thick, thin = [], []
    for side in LATERAL_SIDES:
        hilum = np.array([anatomy.centre + side * 0.1, anatomy.apex + 0.33 + 0.02 * side])
        for angle in rng.uniform(-1.25, 1.25, 11):
            heading = np.array([side * np.cos(angle), np.sin(angle)])
            middle = hilum + heading * rng.uniform(0.06, 0.11)
            bend = rng.uniform(-0.4, 0.4)
            turned = np.array([heading[0] * np.cos(bend), heading[1] + np.sin(bend)])
            thick.append(np.stack((hilum, middle)))
            thin.append(np.stack((middle, middle + turned * rng.uniform(0.06, 0.14))))
    vessels = canvas.ellipses(
        [((anatomy.centre + s * 0.1, anatomy.apex + 0.33 + 0.02 * s), (0.035, 0.06), -15 * s) for s in LATERAL_SIDES],
        0.015,
        0.11,
    )
    vessels += canvas.lines(thick, 0.011 + 0.004 * congestion, 0.004, 0.085)
    vessels += canvas.lines(thin, 0.006 + 0.003 * congestion, 0.003, 0.06)
    return vessels


def _breasts(canvas: _Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    y = anatomy.base - rng.uniform(0.1, 0.16)
    shapes = [((anatomy.centre + s * 0.22, y), (0.15, 0.13), 0.0) for s in LATERAL_SIDES]
    return canvas.ellipses(shapes, 0.02, rng.uniform(0.02, 0.05))


def _span(outline: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return inner x, outer x (further from the spine) and height of a lung."""
    xs = outline[:, 0]
    inner = xs[-1]
    outer = xs[np.abs(xs - inner).argmax()]
    return float(inner), float(outer), float(np.ptp(outline[:, 1]))


def _effusion(
    canvas: _Canvas,
    anatomy: Anatomy,
    lungs: dict[int, NDArray[np.float64]],
    sides: tuple[int, ...],
    severity: float,
    rng: np.random.Generator,
) -> tuple[Field, Mask]:
    """Draw fluid with a meniscus: its upper border is concave and highest at the chest wall."""
    shadow = np.zeros((canvas.size, canvas.size), dtype=np.float32)
    for side in sides:
        inner, outer, height = _span(lungs[side])
        bottom = lungs[side][:, 1].max()
        depth = height * (0.06 + 0.34 * severity) * (1 if side == sides[0] else rng.uniform(0.6, 1.0))
        outward = np.clip((canvas.x - inner) / (outer - inner), 0, 1)
        level = bottom - depth * (0.55 + 0.75 * outward**3)
        edge = 0.012
        shadow = np.maximum(
            shadow,
            np.clip(0.5 + (canvas.y - level) / (2 * edge), 0, 1) * (np.sign(canvas.x - anatomy.centre) == side),
        )
    return np.float32(0.36) * shadow, shadow > 0.5


def _down_to_base(mask: Mask, lungs: dict[int, NDArray[np.float64]], size: int) -> Mask:
    """Extend the mask of fluid as a radiologist would outline it: from the meniscus down to the costophrenic angle.

    Fluid around the dome hides its border, so the dome is included. Separate parts between heart and spine are not.
    """
    filled = np.zeros_like(mask)
    for outline in lungs.values():
        left, right = sorted((float(outline[:, 0].min()), float(outline[:, 0].max())))
        columns = slice(max(round(left * size), 0), round(right * size) + 1)
        bottom = round(float(outline[:, 1].max()) * size)
        side = np.logical_or.accumulate(mask[:bottom, columns], axis=0)
        filled[:bottom, columns] |= _largest_part(side)
    return filled


def _largest_part(mask: Mask) -> Mask:
    _, parts, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = figures[1:, cv2.CC_STAT_AREA]
    largest: Mask = parts == (1 + int(areas.argmax()) if len(areas) else -1)
    return largest


def _edema(
    canvas: _Canvas,
    anatomy: Anatomy,
    lungs: dict[int, NDArray[np.float64]],
    sides: tuple[int, ...],
    severity: float,
    rng: np.random.Generator,
) -> tuple[Field, Mask]:
    """Draw haze around both hila that fades outwards (bat wing pattern)."""
    y = anatomy.apex + 0.37
    haze = np.zeros((canvas.size, canvas.size), dtype=np.float32)
    for side in sides:
        spread = anatomy.half_thorax * (0.23 + 0.095 * severity)
        haze += canvas.glow(
            anatomy.centre + side * 0.42 * anatomy.half_thorax, y + rng.uniform(-0.02, 0.02), spread, 1.45 * spread
        )
    grain = cv2.resize(
        rng.uniform(0.75, 1.25, (24, 24)).astype(np.float32),
        (canvas.size, canvas.size),
        interpolation=cv2.INTER_CUBIC,
    )
    return np.float32(0.05 + 0.23 * severity) * haze * grain, haze > 0.45


def _consolidation(
    canvas: _Canvas,
    anatomy: Anatomy,
    lungs: dict[int, NDArray[np.float64]],
    sides: tuple[int, ...],
    severity: float,
    rng: np.random.Generator,
) -> tuple[Field, Mask]:
    """Draw one focal opacity with soft, uneven edges and air bronchograms."""
    side = sides[0]
    inner, outer, height = _span(lungs[side])
    x = inner + (outer - inner) * rng.uniform(0.5, 0.68)
    y = lungs[side][:, 1].min() + height * (rng.uniform(0.2, 0.36) if rng.random() < 0.5 else rng.uniform(0.52, 0.68))
    radius = 0.065 + 0.045 * severity
    lobes = [
        (
            (x + float(dx) * radius, y + float(dy) * radius),
            (radius * float(a), radius * float(b)),
            float(turn),
        )
        for dx, dy, a, b, turn in zip(
            *rng.uniform(-0.45, 0.45, (2, 5)),
            *rng.uniform(0.55, 0.95, (2, 5)),
            rng.uniform(0, 180, 5),
            strict=True,
        )
    ]
    opacity = canvas.ellipses(lobes, 0.014)
    hilum = np.array([inner, lungs[side][:, 1].min() + 0.33])
    tubes = [_bronchus(hilum, np.array([x, y]), radius, fan) for fan in rng.uniform(-0.5, 0.5, 3)]
    bronchograms = canvas.lines(tubes, 0.007, 0.003)
    return np.float32(0.08 + 0.24 * severity) * opacity * (1 - 0.45 * bronchograms), opacity > 0.5


def _bronchus(
    hilum: NDArray[np.float64], centre: NDArray[np.float64], radius: float, fan: float
) -> NDArray[np.float64]:
    """Return a slightly bent path [P, 2] across an opacity from its hilar side, turned by `fan` radians."""
    towards = centre - hilum
    angle = np.arctan2(towards[1], towards[0]) + fan
    along = np.linspace(-0.55, 0.85, 6)
    bend = 0.35 * fan * along**2
    ahead, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    path: NDArray[np.float64] = centre + radius * (along[:, None] * ahead + bend[:, None] * aside)
    return path


def _atelectasis(
    canvas: _Canvas,
    anatomy: Anatomy,
    lungs: dict[int, NDArray[np.float64]],
    sides: tuple[int, ...],
    severity: float,
    rng: np.random.Generator,
) -> tuple[Field, Mask]:
    """Draw a plate across the lower lung. The raised diaphragm is part of the lung's outline."""
    side = sides[0]
    inner, outer, height = _span(lungs[side])
    y = lungs[side][:, 1].min() + height * rng.uniform(0.6, 0.72)
    start = inner + (outer - inner) * rng.uniform(0.16, 0.28)
    end = inner + (outer - inner) * rng.uniform(0.82, 0.98)
    slope = rng.uniform(-0.05, 0.03)
    plate = np.array([[start, y], [(start + end) / 2, y + slope / 2 - 0.008], [end, y + slope]])
    band = canvas.fill([_tapered(plate, 0.030 + 0.018 * severity)], 0.004)
    return np.float32(0.09 + 0.24 * severity) * band, band > 0.5


def _tapered(path: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return the outline [2 P, 2] of a band along a horizontal path, thin at both ends."""
    along = np.linspace(0, 1, 24)
    knots = np.linspace(0, 1, len(path))
    middle = np.column_stack([np.interp(along, knots, path[:, axis]) for axis in (0, 1)])
    half = (width / 2) * np.clip(4 * along * (1 - along), 0, 1) ** 0.35
    offset = np.column_stack((np.zeros_like(half), half))
    return np.concatenate((middle - offset, (middle + offset)[::-1]))


_PAINTERS = {
    "Atelectasis": _atelectasis,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Pleural Effusion": _effusion,
}


def _central_line(canvas: _Canvas, anatomy: Anatomy) -> Field:
    c, top = anatomy.centre, anatomy.apex
    path = np.array([[c - 0.14, -0.01], [c - 0.1, top + 0.08], [c - 0.05, top + 0.14], [c - 0.04, top + 0.36]])
    return canvas.lines([path], 0.006, 0.002, 0.22)


def _pacemaker(canvas: _Canvas, anatomy: Anatomy) -> Field:
    c, top = anatomy.centre, anatomy.apex
    x, y = c + 0.25, top + 0.07
    lead = np.array([[x, y], [c + 0.1, top + 0.06], [c, top + 0.2], [c, top + 0.5], [c + 0.1, top + 0.58]])
    case = canvas.ellipses([((x, y), (0.05, 0.042), 20)], 0.002, 0.35)
    return case + canvas.lines([lead], 0.006, 0.002, 0.25)


_DEVICES = {"central line": _central_line, "pacemaker": _pacemaker}
DEVICES = ("", *_DEVICES)
"""Devices that may lie over the chest; the empty string is none."""


def _expose(density: Field, lying: bool, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Convert density to a film, with exposure, contrast, uneven field and noise."""
    size = density.shape[0]
    tilt_x, tilt_y = rng.uniform(-0.03, 0.03, 2)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    film = density * np.float32(rng.uniform(0.92, 1.08))
    film += tilt_x.astype(np.float32) * axis[None, :] + (tilt_y.astype(np.float32) * axis + np.float32(0.06))[:, None]
    film += _noise(size, rng.uniform(0.012, 0.022) + (0.006 if lying else 0.0), rng)
    levels = np.clip(film * np.float32(255), 1, 255).astype(np.uint8)
    curve = np.round(255 * (np.arange(256) / 255) ** rng.uniform(0.9, 1.1)).astype(np.uint8)
    return cv2.LUT(levels, curve).astype(np.uint8, copy=False)


def _noise(size: int, deviation: float, rng: np.random.Generator) -> Field:
    """Return Gaussian noise with 256 levels, from random bytes and a table: eight times as fast as drawing normals."""
    raw = np.frombuffer(rng.bytes(size * size), dtype=np.uint8).reshape(size, size)
    return cv2.LUT(raw, _NORMAL_LEVELS * np.float32(deviation)).astype(np.float32, copy=False)


def _write_marker(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Write an L at the patient's left (right side of the image) or an R at the patient's right."""
    size = image.shape[0]
    left = bool(rng.random() < 0.6)
    place = (round(size * (0.9 if left else 0.04)), round(size * rng.uniform(0.08, 0.13)))
    scale = size / 320 * 0.75
    cv2.putText(
        image,
        "L" if left else "R",
        place,
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        235,
        max(1, round(size / 160)),
        cv2.LINE_AA,
    )
