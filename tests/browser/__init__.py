"""The notebooks as a reader meets them: JupyterLab in a real browser, with keyboard and mouse.

`lab.py` starts JupyterLab on a copy of the notebooks, `reader.py` is the person in front of it. What is asserted is the
state of the page.
"""
