"""The numbers of steps that progressive distillation goes through: … 65, 33, 17, 9, 5, 3, 2, 1. Does not import JAX.

With S = 2^k + 1 steps, the timesteps n = j·(T−1) // (S−1) contain those of half as many intervals, so each step of a
student replaces two of its teacher. A single step replaces both steps of decoding in two (`diffusion.distillation`).
"""

from __future__ import annotations


def is_nested(steps: int) -> bool:
    """Whether distillation goes through this number of steps: 1, 2, 3, 5, 9, … 2^k + 1."""
    intervals = steps - 1
    return intervals == 0 or (intervals > 0 and intervals & (intervals - 1) == 0)


def student_steps_of(teacher_steps: int) -> int:
    """The number of steps of a student, given its teacher's: 2, 3, 5, 9, …"""
    return (teacher_steps + 1) // 2


def teacher_steps_of(student_steps: int) -> int:
    """The number of steps of a teacher, given its student's: 1, 2, 3, 5, …"""
    return 2 if student_steps == 1 else 2 * student_steps - 1


def stage_steps(teacher_steps: int, steps: int) -> tuple[int, ...]:
    """The numbers of steps of all students on the way from a teacher to the last student.

    Args:
      teacher_steps: the number of steps of the first teacher.
      steps: the number of steps of the last student, below `teacher_steps`. `is_nested` must hold for both.
    """
    counts = [student_steps_of(teacher_steps)]
    while counts[-1] > steps:
        counts.append(student_steps_of(counts[-1]))
    return tuple(counts)
