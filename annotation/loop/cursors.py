"""Names under which steps keep how far they are, where others read them too."""

PROJECTS = "labelstudio.projects"
"""What Label Studio's projects are, by kind."""
ODDITIES = "labelstudio.oddities"
"""What the last comparison with all of Label Studio found, counted."""
RECONCILED = "labelstudio.reconciled"
"""When that comparison began."""
