"""How good a model is: metrics of a whole split, BLEU and its like, what goes on inside; later exams."""
