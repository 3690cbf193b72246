"""Latency of TFLite files on this machine, and of their operators, each timed in a process.

What these processes import counts as memory of the model, and they are modules of this
package: so it imports what measures when that is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bignas_tf.deploy.latency.host import (
        Latency,
        TimingError,
        host_conditions,
        measure,
        table,
        write_csv,
    )

__all__ = ["Latency", "TimingError", "host_conditions", "measure", "table", "write_csv"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bignas_tf.deploy.latency import host

    return getattr(host, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
