"""A hand-made Liberty library with odd units, small enough to check every figure by hand."""

HEADER = """
  delay_model : table_lookup;
  revision : "r7";
  time_unit : "10ps";
  voltage_unit : "100mV";
  leakage_power_unit : "1uW";
  capacitive_load_unit (0.5, pf);
  nom_voltage : 11;
  nom_temperature : 25;
  default_max_transition : 20;
  slew_lower_threshold_pct_rise : 30;
  slew_upper_threshold_pct_rise : 70.0;
  lu_table_template (delay) {
    variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("1, 3"); index_2 ("2, 4, 8");
  }
  lu_table_template (swapped) {
    variable_1 : total_output_net_capacitance; variable_2 : input_net_transition;
    index_1 ("2, 4, 8"); index_2 ("1, 3");
  }
  lu_table_template (setup) {
    variable_1 : constrained_pin_transition; variable_2 : related_pin_transition;
    index_1 ("1, 5"); index_2 ("2, 6");
  }
  power_lut_template (power) {
    variable_1 : input_transition_time; variable_2 : total_output_net_capacitance;
    index_1 ("1, 3"); index_2 ("2, 4, 8");
  }
  power_lut_template (hidden) { variable_1 : input_transition_time; index_1 ("1, 3"); }
"""

#: Delay arc of one input.
ARC = """
  timing () {{
    related_pin : "{related}";
    timing_sense : {sense};
    cell_rise (delay) {{ values ("10, 20, 40", "30, 40, 60"); }}
    cell_fall (swapped) {{ values ("1, 3", "2, 4", "4, 6"); }}
    rise_transition (delay) {{ values ("5, 6, 8", "5, 6, 8"); }}
    fall_transition (scalar) {{ values ("7"); }}
  }}
"""

INVERTER = f"""
  cell (INV) {{
    area : 2.5;
    cell_leakage_power : 0.004;
    leakage_power () {{ when : "A"; value : 0.005; }}
    leakage_power () {{ when : "!A"; value : 0.003; }}
    pin (A) {{ direction : input; capacitance : 0.02; rise_capacitance : 0.022; }}
    pin (Y) {{
      direction : output; function : "A'"; max_capacitance : 8;
      {ARC.format(related="A", sense="negative_unate")}
      internal_power () {{
        related_pin : "A";
        rise_power (power) {{ values ("2, 2, 2", "4, 4, 4"); }}
        fall_power (scalar) {{ values ("1"); }}
      }}
    }}
  }}
"""

BUFFER = f"""
  cell ("BUF") {{
    area : 3;
    leakage_power () {{ when : "A"; value : 1; }}
    leakage_power () {{ when : "!A"; value : 3; }}
    pin ("A") {{ direction : "input"; capacitance : 0.02; }}
    pin (Y) {{
      direction : output; function : "A";
      {ARC.format(related="A", sense="positive_unate")}
    }}
  }}
"""

NAND = f"""
  cell (NAND2) {{
    area : 4
    pin (A, B) {{ direction : input; capacitance : 0.04; }}
    pin (Y) {{
      direction : output; function : "(A B)'";
      {ARC.format(related="A B", sense="negative_unate")}
      internal_power () {{ /* only this input has a condition */
        related_pin : "A"; when : "B"; power (scalar) {{ values ("6"); }} }}
      internal_power () {{ related_pin : "B"; power (scalar) {{ values ("2"); }} }}
    }}
  }}
"""

FLIP_FLOP = """
  cell (DFF) {
    area : 9;
    ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; }
    pin (D) {
      direction : input; capacitance : 0.03;
      timing () {
        related_pin : "CK"; timing_type : setup_rising;
        rise_constraint (setup) { values ("1, 2", "3, 4"); }
        fall_constraint (setup) { values ("5, 6", "7, 8"); }
      }
      timing () { related_pin : "CK"; timing_type : hold_rising;
        rise_constraint (scalar) { values ("99"); } }
      internal_power () { when : "CK & Q"; power (hidden) { values ("8, 16"); } }
      internal_power () { power (scalar) { values ("4"); } }
    }
    pin (CK) {
      direction : input; clock : true; capacitance : 0.01;
      internal_power () { when : "D & Q"; rise_power (scalar) { values ("1"); }
        fall_power (scalar) { values ("2"); } }
      internal_power () { when : "!D & !Q"; rise_power (scalar) { values ("3"); }
        fall_power (scalar) { values ("4"); } }
      internal_power () { when : "D & !Q"; fall_power (scalar) { values ("7"); } }
      internal_power () { when : "!D & Q"; rise_power (scalar) { values ("9"); } }
    }
    pin (Q) {
      direction : output; function : "IQ"; max_capacitance : 8;
      timing () {
        related_pin : "CK"; timing_type : rising_edge;
        cell_rise (scalar) { values ("11"); } cell_fall (scalar) { values ("12"); }
        rise_transition (scalar) { values ("2"); } fall_transition (scalar) { values ("1"); }
      }
    }
  }
"""

TIE = """
  cell (TIE1) { area : 1; dont_use : true; pin (Y) { direction : output; function : "1"; } }
"""

BASICS = (INVERTER, BUFFER, NAND, FLIP_FLOP)


def liberty(*cells: str, header: str = HEADER) -> str:
    """Put cells into a library."""
    return f"library (tiny) {{{header}{''.join(cells)}}}\n"
