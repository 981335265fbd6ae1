"""How much data or compute it takes to reach a result, as laws of model size and ratio of updates."""
