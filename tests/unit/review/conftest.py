import pytest

pytest.register_assert_rewrite("tests.unit.review.behaviour", "tests.unit.review.assignment")
