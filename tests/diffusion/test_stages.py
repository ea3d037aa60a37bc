"""The numbers of steps that distillation goes through."""

import numpy as np
import pytest

from cdc_jax.diffusion.schedule import Schedule, cosine_schedule, linear_schedule
from cdc_jax.diffusion.stages import is_nested, stage_steps, student_steps_of, teacher_steps_of

NESTED = (1, 2, 3, 5, 9, 17, 33, 65, 129)


def test_the_ladder():
    assert [steps for steps in range(-3, 130) if is_nested(steps)] == list(NESTED)
    assert stage_steps(65, 1) == (33, 17, 9, 5, 3, 2, 1)
    assert stage_steps(17, 5) == (9, 5) and stage_steps(2, 1) == (1,)
    for student, teacher in zip(NESTED, NESTED[1:], strict=False):
        assert student_steps_of(teacher) == student and teacher_steps_of(student) == teacher


@pytest.mark.parametrize("schedule", [cosine_schedule(8193), linear_schedule(20000)], ids=["x and v", "epsilon"])
def test_a_student_s_timesteps_are_every_second_one_of_its_teacher(schedule: Schedule):
    """T − 1 = 19999 of epsilon is no power of two, and they nest nevertheless."""
    for student in (1, 2, 3, 5, 9, 17, 33, 65, 4097):
        theirs = schedule.ddim_timesteps(teacher_steps_of(student))
        np.testing.assert_array_equal(schedule.ddim_timesteps(student), theirs[::2])
    nested = np.isin(schedule.ddim_timesteps(4), schedule.ddim_timesteps(6))
    assert not nested.all()
