"""Teachers: speech and face models, listeners' votes, and the outputs that students are distilled from."""
