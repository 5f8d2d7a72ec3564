# The project's Python before any other, in login shells too.
export PATH=/opt/medmax/bin:$PATH
