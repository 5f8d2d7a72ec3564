"""The MedMax evaluation suite: rows, questions, answers, records and the runner.

Tasks are in `evaluation.tasks`, scorers in `evaluation.scorers`, statistics and pages in `evaluation.report`.
"""
