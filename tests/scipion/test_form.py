"""Form fields are made from the engine's parameters."""
import re

import pytest
from inputs import each_protocol
from pyworkflow.protocol.constants import LEVEL_ADVANCED

from gmmhet.engine import config
from gmmhet.protocols import protocol_base as base
from gmmhet.protocols.form import field_name, name_fields


@each_protocol
def test_every_parameter_has_a_field_or_is_left_out_on_purpose(cls):
    form = dict(cls().getDefinition().iterParams())
    left_out = base.SET_BY_SCIPION + cls._fromInputs + cls._withoutField
    for field in config.parameters(cls._config):
        assert (field_name(field.name) in form) != (field.name in left_out), field.name


@each_protocol
def test_what_is_left_out_are_parameters_of_the_stage(cls):
    names = {parameter.name for parameter in config.parameters(cls._config)}
    assert set(cls._fromInputs + cls._withoutField) <= names


@each_protocol
def test_an_untouched_form_gives_the_defaults_of_the_engine(cls):
    given = config.from_dict(cls._config, cls()._formValues())
    assert given == cls._config()


@each_protocol
def test_expert_parameters_are_advanced_and_the_others_are_not(cls):
    form = cls().getDefinition()
    for field in cls._formParameters():
        assert (form.getParam(field_name(field.name)).expertLevel.get() == LEVEL_ADVANCED) == field.expert


@each_protocol
def test_the_input_tab_is_small(cls):
    section = cls().getDefinition().getSection("Input")
    assert sum(1 for name, param in section.iterParams() if param.label.get()) <= 13


@each_protocol
def test_labels_units_and_helps_come_from_the_parameters(cls):
    form = cls().getDefinition()
    for field in cls._formParameters():
        param = form.getParam(field_name(field.name))
        assert param.help.get() == name_fields(field.help, cls._config)
        assert field.units in param.label.get()


@each_protocol
def test_no_field_hides_an_attribute_of_scipions_protocol(cls):
    from pwem.protocols import EMProtocol
    names = {field_name(parameter.name) for parameter in cls._formParameters()}
    assert names & set(dir(EMProtocol())) == set()


@pytest.mark.parametrize("text, expected", [
    ("needs --motion-region, not --else", "needs *Motion region*, not --else"),
    ("--atoms of another stage", "*Atomic model* of another stage"),
    ("or --resume", "or *Run mode* Continue")])
def test_a_help_text_names_fields_instead_of_flags(text, expected):
    assert name_fields(text, config.AnalyzeConfig) == expected


@each_protocol
def test_no_help_names_a_flag(cls):
    helps = {name: param.help.get() for name, param in cls().getDefinition().iterParams() if param.help.get()}
    assert {name: text for name, text in helps.items() if re.search(r"--[a-z]", text)} == {}
