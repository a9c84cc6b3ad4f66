"""How good trained weights are: loss, metrics, figures, report."""
