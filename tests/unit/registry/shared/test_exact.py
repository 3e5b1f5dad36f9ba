import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from tellmeter.registry.shared.exact import exact_sum, rounded_sum

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300), max_size=20)


@given(NUMBERS)
def test_nothing_is_lost(numbers):
    assert sum(map(Fraction, exact_sum(numbers)), Fraction(0)) == sum(map(Fraction, numbers), Fraction(0))


@given(NUMBERS, NUMBERS, st.randoms())
def test_who_adds_first_does_not_matter(some, others, random):
    together = some + others
    shuffled = random.sample(together, len(together))
    assert rounded_sum([*exact_sum(some), *others]) == rounded_sum(shuffled) == rounded_sum(exact_sum(shuffled))


@given(st.lists(st.floats(min_value=0, max_value=1e15), min_size=1, max_size=8), st.data())
def test_a_sum_of_what_only_grows_never_falls(numbers, data):
    grown = [number + data.draw(st.floats(min_value=0, max_value=1e15)) for number in numbers]
    cut = data.draw(st.integers(0, len(numbers)))
    assert rounded_sum([*exact_sum(grown[:cut]), *grown[cut:]]) >= rounded_sum(numbers)


def test_what_no_float_holds_is_infinite():
    assert exact_sum([1e308, 1e308, 5.0]) == (math.inf,)
    assert exact_sum([math.inf, 1.0, 2.0]) == (math.inf,)
    assert rounded_sum([1e308, 1e308]) == math.inf
    assert rounded_sum([math.inf, 1.0]) == math.inf


def test_nothing_is_zero():
    assert exact_sum([]) == (0.0,)
    assert rounded_sum([]) == 0.0
