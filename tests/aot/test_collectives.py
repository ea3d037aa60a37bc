"""Collectives are parsed from HLO: every form that compilers write, and a real program."""

from cdc_jax.aot.collectives import Collective, collectives
from tests.aot.devices import data_parallel_step

HLO = """
ENTRY %main {
  %p = f32[4,3]{1,0} parameter(0)
  %all-reduce.496 = (f32[20]{0:T(128)S(1)}, bf16[3,3,20]{2,1,0:T(8,128)}, /*index=2*/f32[]{:T(128)}) all-reduce(%a, %b)
  %get-tuple-element.1 = f32[]{:T(128)} get-tuple-element(%all-reduce.496), index=2
  %all-reduce-start.2 = f32[8]{0} all-reduce-start(%c), channel_id=2
  %all-reduce-done.2 = f32[8]{0} all-reduce-done(%all-reduce-start.2)
  %ag = (u8[2,256]{1,0}, u8[16,256]{1,0}) all-gather-start(%d), dimensions={0}
  %agd = u8[16,256]{1,0} all-gather-done(%ag)
  %cp = (f32[7]{0}, f32[7]{0}, u32[], u32[]) collective-permute-start(%e)
  ROOT %rs = pred[10]{0} reduce-scatter(%f), to_apply=%sum
}
"""


def test_every_form():
    assert collectives(HLO) == [
        Collective("all-reduce", 2, 4, 20 * 4 + 3 * 3 * 20 * 2 + 4 + 8 * 4),
        Collective("all-gather", 1, 1, 16 * 256),
        Collective("reduce-scatter", 1, 1, 10),
        Collective("collective-permute", 1, 1, 7 * 4),
    ]


def test_no_collectives():
    assert collectives('ENTRY %main { ROOT %p = f32[4]{0} parameter(0), metadata={op_name="all-reduce("} }') == []


def test_a_data_parallel_step_reduces_its_gradients():
    step = data_parallel_step(devices=2, features=16)
    operations = collectives(step.function.lower(*step.arguments).compile().as_text())
    assert [item.kind for item in operations] == ["all-reduce"]
    assert operations[0].result_bytes == (16 * 16 + 16) * 4
