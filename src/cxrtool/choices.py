"""The words an option may have: one list feeds the settings, the command line and the documents."""

from enum import StrEnum


class Views(StrEnum):
    """Which radiographs of a sheet are used."""

    FRONTAL = "frontal"
    ALL = "all"


class Level(StrEnum):
    """What one row of a prediction table is: an image, or a study with the maximum over its images."""

    IMAGE = "image"
    STUDY = "study"


class Criterion(StrEnum):
    """What a tuned threshold maximises, or the figure it must reach."""

    F1 = "f1"
    BALANCED_ACCURACY = "balanced-accuracy"
    YOUDEN = "youden"
    RECALL = "recall"
    SPECIFICITY = "specificity"


class Device(StrEnum):
    """Where the network runs; ``auto`` takes a GPU when there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Backend(StrEnum):
    """What runs the network outside training; predict's ``auto`` takes an export beside the bundle, else torch."""

    AUTO = "auto"
    TORCH = "torch"
    ONNX = "onnx"
    OPENVINO = "openvino"


class ExportFormat(StrEnum):
    """What an exported network is written as."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH_EXPORT = "torch-export"


class Precision(StrEnum):
    """What convolutions run in; ``auto`` takes bf16 where it is faster and, for predict, close enough to fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


class MatmulPrecision(StrEnum):
    """See ``torch.set_float32_matmul_precision``."""

    HIGHEST = "highest"
    HIGH = "high"
    MEDIUM = "medium"


class OptimizerName(StrEnum):
    """Adam (Kingma & Ba 2015) or AdamW, with decoupled weight decay (Loshchilov & Hutter 2019)."""

    ADAM = "adam"
    ADAMW = "adamw"


class SelectBy(StrEnum):
    """What chooses the best epoch on the valid split."""

    AUROC = "auroc"
    LOSS = "loss"


class CalibrationMethod(StrEnum):
    """The map from raw to calibrated probabilities: one slope, or slope and intercept."""

    TEMPERATURE = "temperature"
    PLATT = "platt"


class MistakeKind(StrEnum):
    """Which way a decision was wrong."""

    BOTH = "both"
    FALSE_POSITIVE = "false-positive"
    FALSE_NEGATIVE = "false-negative"


class Layer(StrEnum):
    """A dense block of the network; maps have an 8th, a 16th or a 32nd of the image's side in cells."""

    DENSEBLOCK2 = "denseblock2"
    DENSEBLOCK3 = "denseblock3"
    DENSEBLOCK4 = "denseblock4"


class Method(StrEnum):
    """How a map is made; see docs/explain.md for what each is worth."""

    GRAD_CAM = "grad-cam"
    GRAD_CAM_PLUS_PLUS = "grad-cam++"
    LAYER_CAM = "layer-cam"
    SCORE_CAM = "score-cam"
    INTEGRATED_GRADIENTS = "integrated-gradients"
    OCCLUSION = "occlusion"


class Policy(StrEnum):
    """What an uncertain label (-1) becomes in training."""

    U_IGNORE = "u-ignore"
    U_ONES = "u-ones"
    U_ZEROS = "u-zeros"


class Blank(StrEnum):
    """What a blank label (not mentioned in the report) becomes."""

    NEGATIVE = "negative"
    IGNORE = "ignore"
