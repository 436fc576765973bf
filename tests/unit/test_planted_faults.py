"""The table of planted faults fits the code, so that each fault can be planted."""

import pytest
from planted_faults import FAULTS
from projects import ROOT


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_text_that_is_there_once_and_tests_that_exist(name):
    fault = FAULTS[name]
    assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old) == 1
    assert fault.new != fault.old
    assert all((ROOT / path).is_file() for path in fault.tests)
