"""Back-up and restore of everything that an installation cannot make again.

Pictures are copied before the database's moment is taken and once more after it, so that a picture that one of its rows
needs is in the back-up, whatever is saved or purged meanwhile. On the way back the database comes last and at once.
"""
