from tellmeter.instruments.counting import count_calls
from tests.support.metrics import values_of


def test_calls_are_counted_as_they_begin(registry):
    @count_calls(
        metric_name="function_calls_total",
        label_extractor=lambda *args, **kwargs: {"user_id": kwargs.get("user_id")},
        registry=registry,
    )
    def process_user_request(user_id):
        assert values_of(registry, "function_calls")[f"user_id={user_id}"] == 1
        return user_id

    assert process_user_request(user_id="u1") == "u1"
    assert values_of(registry, "function_calls") == {"user_id=u1": 1}


def test_without_parentheses_the_function_gives_the_name(own_process):
    @count_calls
    def work():
        return 1

    assert work() == 1
    [family] = own_process._process_registry.families()
    assert family.name.endswith("test_counting_work_calls_total")


def test_generators_are_counted_when_they_begin_and_blocks_when_they_are_entered(registry):
    @count_calls("c_total", registry=registry)
    def generate():
        yield 1

    made = generate()
    assert registry.families() == []
    assert list(made) == [1]
    with count_calls("c_total", registry=registry):
        assert values_of(registry, "c") == {"": 2}
