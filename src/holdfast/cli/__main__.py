"""`python -m holdfast.cli`: the same as `holdfast`.

For an environment whose commands are not on the path; it fails as `holdfast` does.
"""

from holdfast.cli import main

main()
