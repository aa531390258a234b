import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError, tissue
from mrphys.tissue import Tissue


def test_fields_broadcast_to_one_voxel_shape():
    q = Tissue(t1_s=np.full((3, 1), 1.0), t2_s=np.full(4, 0.08), m0=0.7)
    assert q.voxel_shape == (3, 4)
    assert all(leaf.shape == (3, 4) for leaf in jax.tree.leaves(q.broadcast()))


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"t1_s": 1000.0, "t2_s": 0.08}, "milliseconds"),
        ({"t1_s": 1.0, "t2_s": 80.0}, "milliseconds"),
        ({"t1_s": 0.08, "t2_s": 1.0}, "interchanged"),
        ({"t1_s": 1.0, "t2_s": 0.08, "adc_mm2_per_s": 0.9}, "1e-3 mm²/s"),
        ({"t1_s": 1.0, "t2_s": 0.08, "b1": 95.0}, "per cent"),
        ({"t1_s": 1.0, "t2_s": 0.08, "m0": -1.0}, "m0"),
        ({"t1_s": np.ones(3), "t2_s": np.full(4, 0.08)}, "maps of different images"),
        ({"t1_s": 0.0, "t2_s": 0.08}, "t1_s"),
    ],
)
def test_bad_values_are_refused_with_their_likely_cause(fields, cause):
    with pytest.raises(InputError, match=cause):
        Tissue(**fields)


def test_traced_values_pass_the_door():
    assert jax.jit(lambda t1: Tissue(t1_s=t1, t2_s=0.08).t1_s)(1000.0) == 1000.0


@pytest.mark.parametrize("name", tissue.LITERATURE)
def test_every_entry_makes_a_tissue_and_names_its_sources(name):
    for field_t, entry in tissue.LITERATURE[name].items():
        q = tissue.literature(name, field_t, shape=(2,))
        assert q.voxel_shape == (2,)
        for measured in filter(None, entry):
            assert "doi 10." in measured.source or "AJNR" in measured.source
            assert measured.sd is None or 0 < measured.sd < measured.value / 2


def test_longitudinal_relaxation_slows_with_field_in_tissue():
    for name in ("white_matter", "grey_matter", "fibroglandular", "adipose"):
        low, high = (tissue.literature_entry(name, field_t).t1_s.value for field_t in (1.5, 3.0))
        assert high > low


def test_unknown_tissue_and_field_are_refused():
    with pytest.raises(InputError, match="white_matter"):
        tissue.literature("white matter")
    with pytest.raises(InputError, match="3 T"):
        tissue.literature("glioma", field_t=7.0)


@pytest.mark.core
def test_precision_of_maps_is_kept(dtype):
    q = Tissue(t1_s=jnp.ones(2, dtype), t2_s=jnp.full(2, 0.1, dtype))
    assert (q.t1_s + q.m0 + q.adc_mm2_per_s).dtype == dtype


def test_t2_above_t1_warns_and_above_twice_t1_is_refused():
    with pytest.warns(UserWarning, match="T2 above T1.*interchanged"):
        Tissue(t1_s=1.0, t2_s=1.5)
    with pytest.raises(InputError, match="2 T1"):
        Tissue(t1_s=1.0, t2_s=2.5)


def test_reversible_dephasing():
    assert float(Tissue(t1_s=1.0, t2_s=0.1).t2star_s) == pytest.approx(0.1)
    assert float(Tissue(t1_s=1.0, t2_s=0.1, t2prime_s=0.1).t2star_s) == pytest.approx(0.05)
    with pytest.raises(InputError, match="t2prime_s"):
        Tissue(t1_s=1.0, t2_s=0.1, t2prime_s=0.0)
