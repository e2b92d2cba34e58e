"""The names of all settings, taken from the settings themselves."""

from pydantic import BaseModel

from cxrtool.settings import Settings

SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
"""The sections, by name."""
KEYS = [
    *(name for name in Settings.model_fields if name not in SECTIONS),
    *(f"{name}.{key}" for name, section in SECTIONS.items() for key in section.model_fields),
]
"""Every setting by its full name: ``train.lr``."""
