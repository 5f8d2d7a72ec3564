"""The review loop: outputs to experts, their verdicts into instruction data, a better model back."""
