"""The pictures of the pages. Each is made anew from a small run by every build."""


def pictures(site):
    """Yield `(name, Picture)` for each picture; what the site offers for download goes into the folder `site`."""
    yield from ()
