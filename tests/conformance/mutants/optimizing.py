"""Optimizers, schedules and states that are broken."""

import math
from dataclasses import replace

import numpy as np

from cnnkit.optimizers import SGD, Adam, AdamW, ConstantRate, CosineDecay, StepDecay, rate_at
from mutants.breaking import (
    Twisted,
    Wrapped,
    broken_optimizer,
    broken_program,
    broken_rule,
    broken_state,
)

# ------------------------------------------------------------------------------------------------------------------ SGD


@broken_rule(SGD, "Momentum is dampened: v = m v + (1 - m) g", "literal.sgd.momentum", "v22.momentum.another-rate")
def momentum_dampened(optimizer, p, g, slots, step):
    return optimizer.update(p, g * (1 - optimizer.momentum), slots, step)


@broken_rule(
    SGD,
    "The learning rate stands inside of the momentum: v = m v + rate g, p = p - v",
    "v22.momentum.another-rate",
    "v22.momentum.falling-rate",
)
def learning_rate_inside_momentum(optimizer, p, g, slots, step):
    if not slots or optimizer.nesterov:
        return optimizer.update(p, g, slots, step)
    g = g + optimizer.weight_decay * p
    v = optimizer.momentum * slots[0] + rate_at(optimizer.learning_rate, step) * g
    return p - v, (v,)


@broken_rule(
    SGD,
    "The velocity has the other sign, and the parameters are right",
    "v22.momentum.another-rate",
    "v22.nesterov.another-rate",
)
def velocity_negated(optimizer, p, g, slots, step):
    p, slots = optimizer.update(p, g, [-v for v in slots], step)
    return p, tuple(-v for v in slots)


@broken_rule(SGD, "Momentum is ignored", "v22.momentum.another-rate", "v22.momentum.falling-rate")
def momentum_ignored(optimizer, p, g, slots, step):
    return optimizer.update(p, g, [v * 0 for v in slots], step)


@broken_optimizer("Nesterov's momentum is plain momentum", "v22.nesterov.another-rate", "v22.nesterov.falling-rate")
def nesterov_ignored(optimizer):
    return replace(optimizer, nesterov=False) if isinstance(optimizer, SGD) else optimizer


@broken_optimizer("All momentum is Nesterov's", "v22.momentum.another-rate", "v22.momentum.falling-rate")
def always_nesterov(optimizer):
    return replace(optimizer, nesterov=bool(optimizer.momentum)) if isinstance(optimizer, SGD) else optimizer


@broken_rule(
    SGD,
    "Nesterov's step looks ahead with the velocity before the update",
    "v22.nesterov.another-rate",
    "v22.nesterov.falling-rate",
)
def nesterov_with_the_old_velocity(optimizer, p, g, slots, step):
    if not optimizer.nesterov:
        return optimizer.update(p, g, slots, step)
    g = g + optimizer.weight_decay * p
    v = optimizer.momentum * slots[0] + g
    return p - rate_at(optimizer.learning_rate, step) * (g + optimizer.momentum * slots[0]), (v,)


@broken_rule(SGD, "Weight decay spares the biases", "v23.decay.sgd", "v23.decay.momentum")
def weight_decay_spares_biases(optimizer, p, g, slots, step):
    return (replace(optimizer, weight_decay=0.0) if p.ndim == 1 else optimizer).update(p, g, slots, step)


@broken_rule(SGD, "The weight decay of SGD is decoupled: it goes past the momentum", "v23.decay.momentum")
def sgd_weight_decay_decoupled(optimizer, p, g, slots, step):
    p = p * (1 - rate_at(optimizer.learning_rate, step) * optimizer.weight_decay)
    return replace(optimizer, weight_decay=0.0).update(p, g, slots, step)


@broken_optimizer("Weight decay is ignored", "v23.decay.sgd", "v23.decay.momentum")
def weight_decay_ignored(optimizer):
    return optimizer if isinstance(optimizer, Adam) else replace(optimizer, weight_decay=0.0)


@broken_rule(SGD, "Weight decay is halved", "v23.decay.sgd", "v23.decay.momentum")
def weight_decay_halved(optimizer, p, g, slots, step):
    return replace(optimizer, weight_decay=optimizer.weight_decay / 2).update(p, g, slots, step)


@broken_rule(SGD, "Biases learn twice as fast, as Caffe's models had it", "optimizer.sgd.first", "optimizer.sgd.three")
def biases_learn_twice_as_fast(optimizer, p, g, slots, step):
    return optimizer.update(p, g * 2 if p.ndim == 1 else g, slots, step)


@broken_optimizer("SGD goes up the gradient", "literal.sgd", "optimizer.sgd.first")
def gradient_ascent(optimizer):
    return Twisted(optimizer, lambda right, p, g, slots, step: right.update(p, -g, slots, step))


@broken_optimizer("Biases are never updated", "optimizer.step.many-layers")
def biases_frozen(optimizer):
    def rule(right, p, g, slots, step):
        new, slots = right.update(p.copy(), g, slots, step)
        return p if p.ndim == 1 else new, slots

    return Twisted(optimizer, rule)


# ----------------------------------------------------------------------------------------------------------------- Adam


def adam(optimizer, p, g, slots, step, *, update):
    """Adam with `update(m, v, t) -> the move`, times the learning rate."""
    if isinstance(optimizer, AdamW):
        p = p * (1 - rate_at(optimizer.learning_rate, step) * optimizer.weight_decay)
    m = optimizer.beta_1 * slots[0] + (1 - optimizer.beta_1) * g
    v = optimizer.beta_2 * slots[1] + (1 - optimizer.beta_2) * g * g
    move = update(optimizer, m, v, step + 1)
    return p - rate_at(optimizer.learning_rate, step) * move, (m, v)


def corrected(optimizer, m, v, t):
    return m / (1 - optimizer.beta_1**t), v / (1 - optimizer.beta_2**t)


def broken_adam(broken, *meant):
    """The decorated function `(optimizer, m, v, t)` gives the move of Adam and AdamW."""

    def note(update):
        def rule(optimizer, p, g, slots, step):
            return adam(optimizer, p, g, slots, step, update=update)

        rule.__name__, rule.__module__ = update.__name__, update.__module__
        return broken_rule((Adam, AdamW), broken, *meant)(rule)

    return note


@broken_adam("Epsilon stands inside of the root", "v21.adam.epsilon.smaller", "v21.adam.epsilon.tiny")
def epsilon_inside_the_root(optimizer, m, v, t):
    m, v = corrected(optimizer, m, v, t)
    return m / np.sqrt(v + optimizer.epsilon)


@broken_adam(
    "Epsilon stands before the bias correction: the paper's epsilon hat",
    "v21.adam.epsilon.smaller",
    "v21.adam.epsilon.tiny",
)
def epsilon_before_the_correction(optimizer, m, v, t):
    rate = math.sqrt(1 - optimizer.beta_2**t) / (1 - optimizer.beta_1**t)
    return rate * m / (np.sqrt(v) + optimizer.epsilon)


@broken_adam("Epsilon is 1e-7, whatever was asked for", "v21.adam.epsilon.smaller", "v21.adam.epsilon.tiny")
def epsilon_of_keras(optimizer, m, v, t):
    m, v = corrected(optimizer, m, v, t)
    return m / (np.sqrt(v) + 1e-7)


@broken_adam("There is no epsilon", "v21.adamw.epsilon.smaller", "v21.adam.epsilon.smaller")
def epsilon_left_out(optimizer, m, v, t):
    m, v = corrected(optimizer, m, v, t)
    return np.where(v > 0, m / np.sqrt(np.where(v > 0, v, 1)), 0)


@broken_adam(
    "The larger of the root and epsilon is taken, not their sum", "v21.adam.epsilon.tiny", "v21.adam.epsilon.small"
)
def epsilon_as_a_floor(optimizer, m, v, t):
    m, v = corrected(optimizer, m, v, t)
    return m / np.maximum(np.sqrt(v), optimizer.epsilon)


@broken_adam("There is no bias correction", "optimizer.adam.first", "literal.adam.first-step")
def no_bias_correction(optimizer, m, v, _t):
    return m / (np.sqrt(v) + optimizer.epsilon)


@broken_adam("Only the mean of the gradient is corrected for its bias", "literal.adamw", "literal.adam.first-step")
def only_m_corrected(optimizer, m, v, t):
    return corrected(optimizer, m, v, t)[0] / (np.sqrt(v) + optimizer.epsilon)


@broken_adam("Steps are counted from 0 in the bias correction", "literal.adam.second-step", "optimizer.adam.slots")
def bias_correction_one_step_behind(optimizer, m, v, t):
    m, v = corrected(optimizer, m, v, max(t - 1, 1))
    return m / (np.sqrt(v) + optimizer.epsilon)


@broken_adam("Bias correction counts one step too many", "literal.adam.first-step", "literal.adam.second-step")
def bias_correction_one_step_ahead(optimizer, m, v, t):
    m, v = corrected(optimizer, m, v, t + 1)
    return m / (np.sqrt(v) + optimizer.epsilon)


@broken_adam(
    "The root of the mean of squares is not taken", "literal.adam.second-step", "optimizer.adam.no-betas.three"
)
def adam_without_the_root(optimizer, m, v, t):
    m, v = corrected(optimizer, m, v, t)
    return m / (v + optimizer.epsilon)


@broken_optimizer("Beta 1 and beta 2 are swapped", "optimizer.adam.betas.first", "optimizer.adam.betas.three")
def betas_swapped(optimizer):
    if isinstance(optimizer, SGD):
        return optimizer
    return replace(optimizer, beta_1=optimizer.beta_2, beta_2=optimizer.beta_1)


@broken_optimizer("The betas are 0.9 and 0.999, whatever was asked for", "optimizer.adam.betas.first")
def betas_by_default(optimizer):
    return optimizer if isinstance(optimizer, SGD) else replace(optimizer, beta_1=0.9, beta_2=0.999)


@broken_rule(
    (Adam, AdamW), "The mean of squares is that of magnitudes, squared", "literal.adamw", "literal.adam.first-step"
)
def squares_of_the_mean(optimizer, p, g, slots, step):
    m, v = slots
    _, (m, _) = optimizer.update(p.copy(), g.copy(), (m.copy(), v.copy()), step)
    root = optimizer.beta_2 * np.sqrt(v) + (1 - optimizer.beta_2) * np.abs(g)
    held = np.square(root)
    move = corrected(optimizer, m, held, step + 1)
    decay = getattr(optimizer, "weight_decay", 0.0)
    p = p * (1 - rate_at(optimizer.learning_rate, step) * decay)
    return p - rate_at(optimizer.learning_rate, step) * move[0] / (np.sqrt(move[1]) + optimizer.epsilon), (m, held)


@broken_rule(AdamW, "The weight decay of AdamW is added to the gradient, as in L2 regularisation", "v23.decay.adamw")
def adamw_coupled(optimizer, p, g, slots, step):
    return replace(optimizer, weight_decay=0.0).update(p, g + optimizer.weight_decay * p, slots, step)


@broken_rule(AdamW, "The weight decay of AdamW is not multiplied by the learning rate", "v23.decay.adamw")
def adamw_decay_without_the_rate(optimizer, p, g, slots, step):
    p = p * (1 - optimizer.weight_decay)
    return replace(optimizer, weight_decay=0.0).update(p, g, slots, step)


@broken_rule(AdamW, "The weight decay of AdamW spares the biases", "v23.decay.adamw")
def adamw_spares_biases(optimizer, p, g, slots, step):
    return (replace(optimizer, weight_decay=0.0) if p.ndim == 1 else optimizer).update(p, g, slots, step)


@broken_rule(AdamW, "AdamW decays the parameter after the step, not before", "v23.decay.adamw")
def adamw_decays_after_the_step(optimizer, p, g, slots, step):
    p, slots = replace(optimizer, weight_decay=0.0).update(p, g, slots, step)
    return p * (1 - rate_at(optimizer.learning_rate, step) * optimizer.weight_decay), slots


# -------------------------------------------------------------------------------------------------------------- clipping


class Clipping(Twisted):
    """The right rule, clipped otherwise."""

    def __init__(self, right, factor=None, change=None):
        super().__init__(right, lambda own, p, g, slots, step: own.update(p, change(g) if change else g, slots, step))
        self.factor = factor
        if change is not None:
            self.clip_global_norm = None

    def clip_factor(self, sum_of_squares):
        return self.factor(sum_of_squares)


def broken_clipping(broken, *meant):
    """The decorated function `(limit, sum_of_squares)` gives the factor of all gradients."""

    def note(factor):
        def changed(optimizer):
            limit = optimizer.clip_global_norm
            return optimizer if limit is None else Clipping(optimizer, lambda squares: factor(limit, squares))

        changed.__name__, changed.__module__ = factor.__name__, factor.__module__
        return broken_optimizer(broken, *meant)(changed)

    return note


@broken_clipping("Gradients are never clipped", "v24.sgd.clip.below", "v24.adam.clip.below")
def clip_ignored(_limit, _squares):
    return 1.0


@broken_clipping("Gradients shorter than the limit are stretched to it", "v24.sgd.clip.above", "v24.adam.clip.above")
def clip_stretches(limit, squares):
    return limit / math.sqrt(squares) if squares else 1.0


@broken_clipping("The norm is the sum of squares, without its root", "v24.sgd.clip.above", "v24.adam.clip.above")
def clip_without_the_root(limit, squares):
    return min(1.0, limit / squares) if squares else 1.0


@broken_clipping(
    "0.01 is added to the norm, so that clipped gradients are too short", "v24.sgd.clip.below", "v24.adam.clip.below"
)
def clip_with_an_epsilon(limit, squares):
    return min(1.0, limit / (math.sqrt(squares) + 0.01))


@broken_optimizer("Every gradient is clipped by its own norm", "v24.sgd.clip.below", "v24.adam.clip.below")
def clip_per_tensor(optimizer):
    limit = optimizer.clip_global_norm

    def clip(g):
        norm = float(np.sqrt((g * g).sum()))
        return g * (limit / norm) if norm > limit else g

    return optimizer if limit is None else Clipping(optimizer, change=clip)


@broken_optimizer("Every number of a gradient is clipped", "v24.sgd.clip.below", "v24.adam.clip.below")
def clip_by_value(optimizer):
    limit = optimizer.clip_global_norm
    return optimizer if limit is None else Clipping(optimizer, change=lambda g: np.clip(g, -limit, limit))


@broken_optimizer("Every tenth step updates nothing", "network.linear", "network.mlp")
def every_tenth_step_left_out(optimizer):
    def rule(right, p, g, slots, step):
        return (p, slots) if step % 10 == 9 else right.update(p, g, slots, step)

    return Twisted(optimizer, rule)


@broken_rule(
    (Adam, AdamW),
    "Bias correction stops after the hundredth step",
    "v21.adam.step-1000.late",
    "v21.adamw.step-1000.late",
)
def bias_correction_stops(optimizer, p, g, slots, step):
    return optimizer.update(p, g, slots, step if step < 100 else 10**9)


@broken_rule(
    (Adam, AdamW),
    "The correction of the bias is that of step 20 at most",
    "v21.adam.epsilon.late",
    "v21.adamw.epsilon.late",
)
def bias_correction_capped(optimizer, p, g, slots, step):
    rate = rate_at(optimizer.learning_rate, step)
    return replace(optimizer, learning_rate=rate).update(p, g, slots, min(step, 20))


@broken_program("The norm for clipping leaves out the biases", "v24.sgd.clip.below", "v24.adam.clip.below")
class ClipNormWithoutBiases(Wrapped):
    """Which are clipped all the same."""

    def step(self, images, labels):
        optimizer = self.inner.optimizer
        if optimizer.clip_global_norm is None:
            return self.inner.step(images, labels)
        found = self.inner.gradients(images, labels)[1]
        norm = math.sqrt(sum(float((g * g).sum()) for name, g in found.items() if name.endswith("kernel")))
        self.inner.optimizer = Clipping(optimizer, lambda _: min(1.0, optimizer.clip_global_norm / norm))
        loss = self.inner.step(images, labels)
        self.inner.optimizer = optimizer
        return loss


@broken_program("gradients gives gradients that are clipped", "v24.sgd.clip.below", "v24.adam.clip.below")
class GradientsAreClipped(Wrapped):
    """As the step that would follow has them."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        if self.inner.optimizer.clip_global_norm is None:
            return loss, found
        factor = self.inner.optimizer.clip_factor(sum(float((g * g).sum()) for g in found.values()))
        return loss, {name: g * g.dtype.type(factor) for name, g in found.items()}


@broken_program("gradients has the weight decay in it", "v24.momentum-decay.clip")
class GradientsAreDecayed(Wrapped):
    """As the step that would follow has them."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        decay = getattr(self.inner.optimizer, "weight_decay", 0.0)
        return loss, {name: g + g.dtype.type(decay) * self.inner.parameters[name] for name, g in found.items()}


# ------------------------------------------------------------------------------------------------------------- schedules


def broken_schedule(broken, *meant):
    """The decorated function `(schedule, step)` gives the learning rate."""

    def note(rate):
        def changed(optimizer):
            schedule = optimizer.learning_rate
            if isinstance(schedule, (int, float, ConstantRate)):
                return optimizer

            def rule(right, p, g, slots, step):
                return replace(right, learning_rate=float(rate(schedule, step))).update(p, g, slots, step)

            return Twisted(optimizer, rule)

        changed.__name__, changed.__module__ = rate.__name__, rate.__module__
        return broken_optimizer(broken, *meant)(changed)

    return note


@broken_schedule(
    "Schedules are ignored: the first learning rate stays",
    "optimizer.schedule.cosine.over.adamw",
    "optimizer.schedule.cosine.adamw",
)
def schedule_ignored(schedule, _step):
    return schedule.at(0)


@broken_schedule("Schedules are one step ahead", "optimizer.schedule.step.adamw", "optimizer.schedule.step.sgd")
def schedule_one_step_ahead(schedule, step):
    return schedule.at(step + 1)


@broken_schedule("Schedules are one step behind", "optimizer.schedule.step.adamw", "optimizer.schedule.step.sgd")
def schedule_one_step_behind(schedule, step):
    return schedule.at(max(step - 1, 0))


@broken_schedule("A step decay goes down smoothly", "optimizer.schedule.step.adamw", "optimizer.schedule.step.sgd")
def step_decay_smooth(schedule, step):
    if isinstance(schedule, StepDecay):
        return schedule.rate * schedule.factor ** (step / schedule.every)
    return schedule.at(step)


@broken_schedule(
    "A cosine decay comes up again behind its end",
    "optimizer.schedule.cosine.over.adamw",
    "optimizer.schedule.cosine.over.sgd",
)
def cosine_comes_up_again(schedule, step):
    if isinstance(schedule, CosineDecay):
        half = 1 + math.cos(math.pi * step / schedule.steps)
        return schedule.final + (schedule.rate - schedule.final) * half / 2
    return schedule.at(step)


@broken_schedule(
    "A cosine decay ends at 0, whatever its final rate",
    "optimizer.schedule.cosine.over.adamw",
    "optimizer.schedule.cosine.over.sgd",
)
def cosine_ends_at_zero(schedule, step):
    return (replace(schedule, final=0.0) if isinstance(schedule, CosineDecay) else schedule).at(step)


# ---------------------------------------------------------------------------------------------------------------- states


@broken_state(
    "Training begins with slots of zero, whatever the state has",
    "state.round-trip.momentum",
    "state.round-trip.nesterov",
)
def slots_reset(state):
    zero = {slot: {name: a * 0 for name, a in arrays.items()} for slot, arrays in state.slots.items()}
    return replace(state, slots=zero)


@broken_state("Training begins at step 0, whatever the state says", "state.round-trip.adam")
def step_count_reset(state):
    return replace(state, step=0)


@broken_state("Training begins with seed 0, whatever the state says", "v31.dropout.seed", "state.round-trip.sgd")
def seed_reset(state):
    return replace(state, seed=0)


@broken_state("The slots m and v are mixed up in a state that is taken over", "state.round-trip.adam")
def slots_mixed_up(state):
    if set(state.slots) != {"m", "v"}:
        return state
    return replace(state, slots={"m": state.slots["v"], "v": state.slots["m"]})


@broken_program(
    "The step count in a state is that of the program, not of the run",
    "state.round-trip.sgd",
    "state.round-trip.momentum",
)
class StepsCountedFromCompiling(Wrapped):
    """Everything else uses the right count."""

    def __init__(self, inner, plan):
        super().__init__(inner, plan)
        self.begin = getattr(inner, "steps", 0)

    def state(self):
        state = self.inner.state()
        return replace(state, step=state.step - self.begin)


@broken_program(
    "The bias correction and the schedule count from compiling, not from the run's beginning",
    "optimizer.adam.slots",
    "state.handed-over.adam",
)
class UpdatesCountedFromCompiling(Wrapped):
    """The state has the right count."""

    def __init__(self, inner, plan):
        super().__init__(inner, plan)
        if hasattr(inner, "optimizer"):
            begin = inner.steps
            inner.optimizer = Recounted(inner.optimizer, begin)


class Recounted(Twisted):
    def __init__(self, right, begin):
        super().__init__(right, lambda own, p, g, slots, step: own.update(p, g, slots, step - begin))


@broken_program("A state has no slots", "state.numpy-numbers", "state.round-trip.momentum")
class StateWithoutSlots(Wrapped):
    """As if the optimizer had none."""

    def state(self):
        return replace(self.inner.state(), slots={})


@broken_program("A state has seed 0", "state.round-trip.sgd", "state.round-trip.momentum")
class StateWithoutSeed(Wrapped):
    """Whatever it began with."""

    def state(self):
        return replace(self.inner.state(), seed=0)


@broken_program("A state has its slots under the names m and v swapped", "state.round-trip.adam")
class StateWithSlotsSwapped(Wrapped):
    """Whoever continues from it is wrong."""

    def state(self):
        state = self.inner.state()
        if set(state.slots) != {"m", "v"}:
            return state
        return replace(state, slots={"m": state.slots["v"], "v": state.slots["m"]})


@broken_program("A state has its slots corrected for their bias", "state.round-trip.adam")
class StateWithCorrectedSlots(Wrapped):
    """As an engine that keeps them so would hand them out."""

    def state(self):
        state = self.inner.state()
        optimizer = self.inner.optimizer
        if set(state.slots) != {"m", "v"} or not state.step:
            return state
        m = {name: a / (1 - optimizer.beta_1**state.step) for name, a in state.slots["m"].items()}
        return replace(
            state, slots={**state.slots, "m": {name: a.astype(state.parameters[name].dtype) for name, a in m.items()}}
        )


@broken_program("The step count of a state is a float", "state.whole-numbers", "state.handed-over.sgd")
class StateWithAFloatStep(Wrapped):
    """No other backend takes it."""

    def state(self):
        state = self.inner.state()
        return replace(state, step=float(state.step))
