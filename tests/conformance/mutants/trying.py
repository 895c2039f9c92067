"""Tries cases on mutants, quickly: each question is drawn, and answered by the oracle, once for all of them."""

import pickle
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np

from cnnkit.conformance import question as asking
from cnnkit.conformance.catalogue import all_cases
from cnnkit.conformance.judging import judge
from cnnkit.conformance.report import CaseResult, reasons_for_red


def verdict_on(mutant, case):
    """What `case` finds out about `mutant`."""
    return judge(case, mutant.make(mutant.precision), mutant.precision, mutant.refuses)


def reasons(mutant, verdicts):
    """Why a whole run is red. `verdicts` pairs each case with what it found out."""
    results = [
        CaseResult(
            id=case.id,
            precision=mutant.precision,
            claim=case.claim,
            level=case.level,
            features=tuple(sorted(case.features)),
            outcome=verdict.outcome,
            stage=verdict.stage,
        )
        for case, verdict in verdicts
    ]
    return reasons_for_red(results, [])


def is_meant(mutant, case_id):
    """Whether this case is one of those meant for `mutant`: named in full, or by a beginning that ends with a dot."""
    return any(case_id.startswith(name) if name.endswith(".") else case_id == name for name in mutant.meant)


@contextmanager
def remembering():
    """While this lasts, a question that was drawn or answered before is not drawn or answered again."""
    drawn, answered = {}, {}
    draw, expected_answer = asking.draw, asking.expected_answer

    def draw_once(layers, input_shape, **options):
        key = pickle.dumps((layers, input_shape, options))
        if key not in drawn:
            drawn[key] = pickle.dumps(draw(layers, input_shape, **options))
        question = pickle.loads(drawn[key])  # noqa: S301 - a mutant may write into it: each gets a copy
        given = options.get("images")
        return replace(question, images=given) if isinstance(given, np.ndarray) else question

    def answer_once(question):
        key = pickle.dumps(question)
        if key not in answered:
            answered[key] = expected_answer(question)
        return answered[key]

    instead = {draw: draw_once, expected_answer: answer_once}
    all_cases()
    with ExitStack() as stack, np.errstate(all="ignore"):
        for name, module in list(sys.modules.items()):
            if name.startswith("cnnkit.conformance"):
                for attribute, value in list(vars(module).items()):
                    if value is draw or value is expected_answer:
                        stack.enter_context(mock.patch.object(module, attribute, instead[value]))
        yield
