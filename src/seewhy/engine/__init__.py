"""The only part that touches the model: borrow it, run the fewest passes, hand out records, give it back."""
