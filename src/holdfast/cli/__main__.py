"""`python -m holdfast.cli`: the same as `holdfast`.

It is for environments whose commands are not on the path. It fails as `holdfast` does.
"""

from holdfast.cli import main

main()
