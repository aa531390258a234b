"""A pattern and its network at rates of their own."""

from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax.tree_util import keystr


def apart(
    sampling: optax.GradientTransformation, net: optax.GradientTransformation
) -> optax.GradientTransformation:
    """One optimiser for what a module has in `sampling` (`Joint`, `Along`, `Learner`), another for
    the rest; `optax.set_to_zero()` holds either."""

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "sampling" if "sampling" in keystr(path[:1]) else "net", params
        )

    parts: Mapping[Any, Any] = {"sampling": sampling, "net": net}
    return optax.multi_transform(parts, labels)
