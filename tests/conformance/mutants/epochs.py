"""Epochs that are broken."""

import numpy as np

from cnnkit.backend import EpochTotals
from mutants.breaking import Twisted, Wrapped, broken_program


class Epochs(Wrapped):
    """A program with an epoch of its own: a loop over the batches of `order`."""

    def batches(self, order, batch_size):
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def epoch(self, images, labels, order, batch_size):
        losses, count = [], 0
        for batch in self.batches(order, batch_size):
            losses.append((float(self.step(images[batch], labels[batch])), len(batch)))
            count += len(batch)
        return self.totals(losses, count)

    def totals(self, losses, count):
        return EpochTotals(sum(loss * size for loss, size in losses), count)


@broken_program("The last batch is dropped if it is small", "v20.epoch.last-batch", "v20.epoch.last-batch-of-two")
class LastPartialBatchDropped(Epochs):
    """And counted out."""

    def batches(self, order, batch_size):
        return [batch for batch in super().batches(order, batch_size) if len(batch) == batch_size]


@broken_program(
    "The last batch is dropped if it is small, but counted", "v20.epoch.last-batch", "v20.epoch.last-batch-of-two"
)
class LastPartialBatchDroppedQuietly(LastPartialBatchDropped):
    """The mean loss is too small."""

    def epoch(self, images, labels, order, batch_size):
        return EpochTotals(super().epoch(images, labels, order, batch_size).loss_sum, len(order))


@broken_program(
    "The last batch is filled up with images from the beginning", "v20.epoch.last-batch", "v20.epoch.last-batch-of-two"
)
class LastPartialBatchFilledUp(Epochs):
    """So that all batches have one size."""

    def batches(self, order, batch_size):
        return super().batches(np.concatenate([order, order[: -len(order) % batch_size]]), batch_size)


@broken_program(
    "The last batch is filled up with zeros, and divided by its full size",
    "v20.epoch.last-batch",
    "v20.epoch.last-batch-of-two",
)
class LastPartialBatchDividedByTheFullSize(Epochs):
    """Its gradient is too small."""

    def epoch(self, images, labels, order, batch_size):
        rest = len(order) % batch_size
        if not rest or batch_size > len(order):
            return super().epoch(images, labels, order, batch_size)
        whole, last = order[:-rest], order[-rest:]
        totals = super().epoch(images, labels, whole, batch_size)
        right = self.inner.optimizer
        share = rest / batch_size
        self.inner.optimizer = Twisted(right, lambda own, p, g, slots, step: own.update(p, g * share, slots, step))
        loss = float(self.step(images[last], labels[last]))
        self.inner.optimizer = right
        return EpochTotals(totals.loss_sum + loss * rest, len(order))


@broken_program("The last batch is trained on twice", "v20.epoch.last-batch", "v20.epoch.last-batch-of-two")
class LastBatchTwice(Epochs):
    """And counted once."""

    def epoch(self, images, labels, order, batch_size):
        totals = super().epoch(images, labels, order, batch_size)
        last = self.batches(order, batch_size)[-1:]
        for batch in last:
            self.step(images[batch], labels[batch])
        return totals


@broken_program("The order is ignored", "v32.epoch.one-place", "v32.epoch.one-by-one")
class OrderIgnored(Epochs):
    """The first images are taken as they come."""

    def batches(self, order, batch_size):
        return super().batches(np.arange(len(order)), batch_size)


@broken_program("The order is sorted", "v32.epoch.one-by-one", "v32.epoch.permuted")
class OrderSorted(Epochs):
    """As a set of rows would be read from a disk."""

    def batches(self, order, batch_size):
        return super().batches(np.sort(order), batch_size)


@broken_program(
    "Each batch is sorted: the images meet other dropout masks", "v31.dropout.epoch", "v31.dropout.epoch-resumed"
)
class BatchesSorted(Epochs):
    """Without dropout it would not matter."""

    def batches(self, order, batch_size):
        return [np.sort(batch) for batch in super().batches(order, batch_size)]


@broken_program("The epoch shuffles once more", "v32.epoch.one-by-one", "v32.epoch.in-order")
class ShufflesOnceMore(Epochs):
    """As a data loader does."""

    def batches(self, order, batch_size):
        return super().batches(np.random.default_rng(0).permutation(order), batch_size)


@broken_program("Images that the order names twice are taken once", "v32.epoch.longer", "v32.epoch.repeated")
class OrderWithoutRepeats(Epochs):
    """As a set of rows."""

    def batches(self, order, batch_size):
        _, first = np.unique(order, return_index=True)
        return super().batches(order[np.sort(first)], batch_size)


@broken_program("Labels are not put into the order", "v32.epoch.one-place", "v32.epoch.whole")
class LabelsNotReordered(Epochs):
    """Images are."""

    def epoch(self, images, labels, order, batch_size):
        return super().epoch(images[order], labels[: len(order)], np.arange(len(order)), batch_size)


@broken_program("The batch size is always 32", "v20.epoch.last-batch", "v20.epoch.last-batch-of-two")
class BatchSizeIgnored(Epochs):
    """Whatever was asked for."""

    def batches(self, order, batch_size):  # noqa: ARG002 - ignored is what it is
        return super().batches(order, 32)


@broken_program(
    "The epoch takes all its gradients at the parameters it begins with", "v32.epoch.one-by-one", "v20.epoch.last-batch"
)
class EpochInOneBatch(Epochs):
    """One step for all images, but counted as many."""

    def epoch(self, images, labels, order, batch_size):
        count = len(self.batches(order, batch_size))
        loss = float(self.step(images[order], labels[order]))
        self.inner.steps += count - 1
        return EpochTotals(loss * len(order), len(order))


@broken_program("loss_sum is the mean of the losses", "v32.epoch.whole", "v32.epoch.one-by-one")
class LossSumIsTheMean(Epochs):
    """Over the images."""

    def totals(self, losses, count):
        return EpochTotals(super().totals(losses, count).loss_sum / max(1, count), count)


@broken_program(
    "loss_sum adds up the means of the batches, whatever their sizes",
    "v20.epoch.last-batch",
    "v20.epoch.last-batch-of-two",
)
class LossSumOfBatchMeans(Epochs):
    """Times the size of the first."""

    def totals(self, losses, count):
        size = losses[0][1] if losses else 0
        return EpochTotals(sum(loss for loss, _ in losses) * size, count)


@broken_program("loss_sum is made of the losses after each step", "v32.epoch.one-place", "v32.epoch.whole")
class LossSumAfterTheSteps(Epochs):
    """The contract says before."""

    def epoch(self, images, labels, order, batch_size):
        losses = []
        for batch in self.batches(order, batch_size):
            self.step(images[batch], labels[batch])
            losses.append((self.gradients(images[batch], labels[batch])[0], len(batch)))
        return self.totals(losses, len(order))


@broken_program("loss_sum is that of the last batch, for all", "v20.epoch.last-batch", "v20.epoch.last-batch-of-two")
class LossSumOfTheLastBatch(Epochs):
    """Times the count."""

    def totals(self, losses, count):
        return EpochTotals(losses[-1][0] * count if losses else 0.0, count)


@broken_program("count is the number of batches", "v32.epoch.whole", "v32.epoch.in-order")
class CountOfBatches(Epochs):
    """Not of images."""

    def totals(self, losses, count):
        return EpochTotals(super().totals(losses, count).loss_sum, len(losses))


@broken_program(
    "count is the number of images in the data set, not in the order", "conduct.epoch.empty", "v32.epoch.one-place"
)
class CountOfTheDataset(Epochs):
    """The order may be a piece of an epoch."""

    def epoch(self, images, labels, order, batch_size):
        return EpochTotals(super().epoch(images, labels, order, batch_size).loss_sum, len(images))


@broken_program("Totals go on from one epoch to the next", "conduct.epoch.pieces", "conduct.epoch.reused-memory")
class TotalsNotReset(Epochs):
    """Each call has totals of its own."""

    loss_sum = count = 0

    def totals(self, losses, count):
        mine = super().totals(losses, count)
        self.loss_sum, self.count = self.loss_sum + mine.loss_sum, self.count + count
        return EpochTotals(self.loss_sum, self.count)


@broken_program("An epoch counts as one step", "v32.epoch.one-by-one", "v32.epoch.in-order")
class EpochCountsAsOneStep(Epochs):
    """Bias correction, schedules and masks stand still in it."""

    def epoch(self, images, labels, order, batch_size):
        before = self.inner.steps
        losses = []
        for batch in self.batches(order, batch_size):
            self.inner.steps = before
            losses.append((float(self.step(images[batch], labels[batch])), len(batch)))
        return self.totals(losses, len(order))


@broken_program("An epoch forgets to count its steps", "v32.epoch.one-place", "v32.epoch.whole")
class EpochStepsNotCounted(Epochs):
    """In the state; while it goes on, it counts."""

    def epoch(self, images, labels, order, batch_size):
        before = self.inner.steps
        totals = super().epoch(images, labels, order, batch_size)
        self.inner.steps = before
        return totals


@broken_program("An epoch begins with slots of zero", "conduct.epoch.pieces", "conduct.epoch.between")
class EpochResetsSlots(Epochs):
    """Momentum is lost between the pieces of an epoch."""

    def epoch(self, images, labels, order, batch_size):
        self.inner.slots = {name: tuple(slot * 0 for slot in slots) for name, slots in self.inner.slots.items()}
        return super().epoch(images, labels, order, batch_size)


@broken_program("An epoch trains a copy: the state stays as it was", "v32.epoch.one-place", "v32.epoch.whole")
class EpochTrainsACopy(Epochs):
    """Its totals are right."""

    def epoch(self, images, labels, order, batch_size):
        before = {name: array.copy() for name, array in self.inner.parameters.items()}
        totals = super().epoch(images, labels, order, batch_size)
        self.inner.parameters = before
        return totals


@broken_program(
    "An epoch uploads its images once and keeps them by their shape",
    "conduct.epoch.reused-memory",
    "conduct.epoch.other-data",
)
class ImagesKeptByShape(Epochs):
    """Another data set of the same size meets the first one's images."""

    def epoch(self, images, labels, order, batch_size):
        self.kept = getattr(self, "kept", {})
        images = self.kept.setdefault((images.shape, images.dtype), images.copy())
        return super().epoch(images, labels, order, batch_size)


@broken_program("An epoch keeps the labels of the first call", "conduct.epoch.other-data")
class LabelsKept(Epochs):
    """With new images of the same number."""

    def epoch(self, images, labels, order, batch_size):
        self.kept = getattr(self, "kept", {})
        labels = self.kept.setdefault(len(labels), labels.copy())
        return super().epoch(images, labels, order, batch_size)


@broken_program("An epoch over uint8 images trains on them divided by 255", "v20.epoch.bytes")
class EpochDividesUint8(Epochs):
    """Unlike step."""

    def epoch(self, images, labels, order, batch_size):
        if images.dtype == np.uint8:
            images = (images / 255).astype(np.float32)
        return super().epoch(images, labels, order, batch_size)


@broken_program("An empty piece of an order is a ZeroDivisionError", "conduct.epoch.empty")
class EmptyOrderFails(Epochs):
    """As the mean of nothing."""

    def epoch(self, images, labels, order, batch_size):
        if not len(order):
            raise ZeroDivisionError("float division by zero")
        return super().epoch(images, labels, order, batch_size)


@broken_program("predict goes on with the parameters from before the epoch", "conduct.epoch.between")
class PredictFromBeforeTheEpoch(Epochs):
    """Until the next step."""

    def epoch(self, images, labels, order, batch_size):
        before = {name: array.copy() for name, array in self.inner.parameters.items()}
        totals = super().epoch(images, labels, order, batch_size)
        self.before = before
        return totals

    def predict(self, images):
        if not hasattr(self, "before"):
            return self.inner.predict(images)
        now, self.inner.parameters = self.inner.parameters, self.before
        output = self.inner.predict(images)
        self.inner.parameters = now
        return output


@broken_program(
    "A place below zero in an order counts from the end", "v18.labels.too-few.epoch", "v18.labels.too-many.epoch"
)
class NegativePlacesWrap(Epochs):
    """As an index of Python does, or of many an engine."""

    def epoch(self, images, labels, order, batch_size):
        return super().epoch(images, labels, np.where(order < 0, order + len(images), order), batch_size)


@broken_program("A batch size larger than the order is refused", "v20.epoch.smaller-than-batch", "conduct.epoch.empty")
class LargeBatchSizeRefused(Epochs):
    """The last batch may be smaller, be it the only one."""

    def epoch(self, images, labels, order, batch_size):
        if batch_size > len(order):
            raise ValueError("batch_size is larger than the data")
        return super().epoch(images, labels, order, batch_size)
