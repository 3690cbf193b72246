"""Training images on the devices, and batches made of them there."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bignas_tf.data.batches import BatchPlan
from bignas_tf.data.device_augmentation import augment
from bignas_tf.training.chunks import Inputs
from bignas_tf.training.losses import mixed_targets

_STREAMED_BYTES = 2**30  # of the images of one chunk, where the host reads them


def sharding(mesh: Mesh, *axes: str | None) -> NamedSharding:
    """Of an array whose named axes are divided among the devices; of none, copied to all."""
    return NamedSharding(mesh, PartitionSpec(*axes))


class DeviceData:
    """The examples of a plan: on every device, or sent chunk by chunk.

    Those are sent that are too large, or augmented by the host.

    Args:
        plan: which augmented examples each step trains on.
        classes: number of them.
        mesh: of the devices, with the axis "batch".
        limit_mb: of images that stay on a device; None for a quarter of its memory.

    Attributes:
        arrays: labels and, where they fit, images, both in the split's order.
    """

    def __init__(self, plan: BatchPlan, classes: int, mesh: Mesh, limit_mb: float | None = None):
        self.plan = plan
        self._classes = classes
        self._mesh = mesh
        if limit_mb is None:
            statistics = mesh.devices.flat[0].memory_stats() or {}
            limit_mb = statistics.get("bytes_limit", 2**35) / 4e6
        images = plan.split.images
        fits = images is not None and images.nbytes <= limit_mb * 1e6
        self.resident = fits and not plan.policy.on_host
        arrays = {"labels": plan.split.labels} | ({"images": images} if self.resident else {})
        self.arrays = jax.device_put(arrays, sharding(mesh))

    def most_steps(self, steps: int) -> int:
        """Of a chunk, at most `steps`, so that images that are sent fit into memory."""
        if self.resident:
            return steps
        height, width, channels = self.plan.split.image_shape
        step_bytes = self.plan.batch_size * height * width * channels
        return max(1, min(steps, _STREAMED_BYTES // step_bytes))

    def place(self, inputs: Inputs) -> Inputs:
        """Uploads a chunk, examples divided among the devices."""
        divided = {
            name: sharding(self._mesh, None, "batch")
            if name not in ("tables", "resolutions")
            else sharding(self._mesh)
            for name in inputs
        }
        return jax.device_put(inputs, divided)

    def batch(self, arrays: Inputs, inputs: Inputs) -> tuple[Any, Any]:
        """The batch of one step, inside a compiled program.

        Args:
            arrays: of this object.
            inputs: of the step.

        Returns:
            Augmented images, uint8, and labels: ints, or probabilities where images mix.
        """
        policy, index = self.plan.policy, inputs["index"]
        images = arrays["images"][index] if self.resident else inputs["images"]
        images = lax.with_sharding_constraint(images, sharding(self._mesh, "batch"))
        if not policy.on_host:
            images = augment(policy, images, inputs)
        labels = arrays["labels"][index]
        if policy.mixup:
            labels = mixed_targets(labels, labels[::-1], inputs["shares"], self._classes)
        return lax.with_sharding_constraint(images, sharding(self._mesh, "batch")), labels
