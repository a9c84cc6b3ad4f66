"""The former name of `palm_cls.core.device`, for notebooks that import it before paddle."""

from palm_cls.core.device import *  # noqa: F403
