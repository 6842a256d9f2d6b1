"""What multiclass and regression predictions keep beside the row that every prediction has."""
