"""How good trained weights are: loss, measures, figures, report."""
