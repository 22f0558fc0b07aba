"""Teachers of students: their outputs, and the models that give them."""
