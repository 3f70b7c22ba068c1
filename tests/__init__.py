"""What is promised, and held by pytest: one module per promise."""

import pytest

pytest.register_assert_rewrite("tests.refusals")
