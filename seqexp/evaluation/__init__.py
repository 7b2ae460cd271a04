"""How good a model is: whole-split metrics, and later BLEU and exams."""
