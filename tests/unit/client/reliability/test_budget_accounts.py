import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.client.reliability import budget_accounts
from tellmeter.client.reliability.budget_accounts import OVERFLOW, Account, Accounts, Answer, units_of, usd_of

T0 = 1_700_000_000.0


@given(st.floats(0, 1e308))
def test_dollars_keep_their_digits(usd):
    assert usd_of(units_of(usd)) == pytest.approx(usd, rel=1e-12, abs=1e-19)


def test_the_sum_of_what_no_float_can_hold_is_the_largest_float():
    assert usd_of(units_of(1e308) * 5) == pytest.approx(1.7976931348623157e308)


def spent(account, now=T0):
    return account.spent(now)


def test_without_an_answer_it_is_what_this_process_spent():
    account = Account(60)
    account.add(T0, 3, 30)
    assert spent(account) == (3, 30)
    assert not account.answered


def test_an_answer_takes_the_place_of_what_was_spent_before_the_question():
    account = Account(60)
    account.add(T0, 3, 30)
    question = account.ask(T0)
    account.conclude(question, Answer(10, 100, own_arrives=True))
    account.add(T0, 1, 10)
    assert spent(account) == (11, 110)


def test_what_ends_while_the_question_is_under_way_is_counted_beside_the_answer_until_the_next():
    account = Account(60)
    first = account.ask(T0)
    account.add(T0, 5, 50)
    account.conclude(first, Answer(5, 50, own_arrives=True))  # it is in the answer: counted twice
    assert spent(account) == (10, 100)
    account.conclude(account.ask(T0), Answer(5, 50, own_arrives=True))
    assert spent(account) == (5, 50)


def test_a_call_that_the_answer_lacks_is_not_lost():
    account = Account(60)
    first = account.ask(T0)
    account.add(T0, 5, 50)
    account.conclude(first, Answer(0, 0, own_arrives=True))
    assert spent(account) == (5, 50)


def test_a_question_that_fails_changes_nothing_but_says_so():
    account = Account(60)
    account.conclude(account.ask(T0), Answer(10, 100, own_arrives=True))
    account.add(T0, 1, 1)
    question = account.ask(T0)
    account.add(T0, 2, 2)
    account.conclude(question, None)
    assert account.trouble
    assert spent(account) == (13, 103)


def test_an_answer_below_what_this_process_knows_of_itself_is_not_believed():
    account = Account(60)
    account.add(T0, 9, 90)
    account.conclude(account.ask(T0), Answer(2, 200, own_arrives=True))
    assert spent(account) == (9, 200)


def test_own_spend_that_never_arrives_is_always_added():
    account = Account(60)
    account.add(T0, 9, 90)
    account.conclude(account.ask(T0), Answer(2, 20, own_arrives=False))
    account.add(T0, 1, 10)
    assert spent(account) == (12, 120)


def test_an_answer_that_is_older_than_the_window_counts_no_more():
    account = Account(60)
    account.conclude(account.ask(T0), Answer(10, 100, own_arrives=True))
    assert spent(account, T0 + 59) == (10, 100)
    assert spent(account, T0 + 60) == (0, 0)
    forever = Account(None)
    forever.conclude(forever.ask(T0), Answer(10, 100, own_arrives=True))
    assert spent(forever, T0 + 1e9) == (10, 100)


@pytest.fixture
def three_keys(monkeypatch):
    monkeypatch.setattr(budget_accounts, "MAX_KEYS", 3)
    return Accounts(60)


def use(accounts, key, now, tokens=1):
    place, account = accounts.open(key, now)
    account.add(now, 0, tokens)
    accounts.moved(place, now)
    return place


def test_further_keys_share_one_and_nobody_is_forgotten(three_keys):
    assert [use(three_keys, key, T0) for key in "abcde"] == ["a", "b", "c", OVERFLOW, OVERFLOW]
    assert three_keys.shared.spent(T0) == (0, 2)
    assert three_keys.find("a", T0)[1].spent(T0) == (0, 1)
    assert three_keys.find("zzz", T0) == (OVERFLOW, three_keys.shared)


def test_a_key_that_is_called_like_the_shared_one_shares_it(three_keys):
    assert use(three_keys, OVERFLOW, T0) == OVERFLOW
    assert len(three_keys) == 0


def test_a_key_whose_window_is_empty_makes_room(three_keys):
    for number, key in enumerate("abc"):
        use(three_keys, key, T0 + number)
    use(three_keys, "a", T0 + 10)
    later = T0 + 1 + 61
    assert use(three_keys, "d", later) == "d"
    assert three_keys.find("b", later)[0] == OVERFLOW
    assert three_keys.find("a", later)[1].spent(later) == (0, 1)


def test_a_key_that_never_spent_goes_before_one_that_did(three_keys):
    use(three_keys, "a", T0)
    three_keys.open("b", T0)
    use(three_keys, "c", T0)
    assert use(three_keys, "d", T0) == "d"
    assert three_keys.find("a", T0)[1].spent(T0) == (0, 1)


def test_a_key_whose_question_is_under_way_stays(three_keys):
    question = three_keys.open("a", T0)[1].ask(T0)
    use(three_keys, "b", T0)
    use(three_keys, "c", T0)
    assert use(three_keys, "d", T0) == OVERFLOW
    three_keys.find("a", T0)[1].conclude(question, Answer(0, 0, own_arrives=True))
    assert use(three_keys, "d", T0) == "d"


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.floats(0, 30), st.booleans()), max_size=60))
def test_all_that_was_spent_in_the_window_is_in_some_account(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_accounts, "MAX_KEYS", 3)
        accounts, now, log = Accounts(60), T0, []
        for key, pause, spends in steps:
            now += pause
            if spends:
                use(accounts, key, now)
                log.append(now)
            else:
                accounts.open(key, now)
            assert len(accounts) <= 3
            held = sum(account.spent(now)[1] for account in accounts.each())
            assert sum(at > now - 60 for at in log) <= held <= sum(at > now - 61.01 for at in log)
