"""Use a project's window as a person would, and write down what appeared. Run as a program under a display:

    python gui_driver.py PROJECT_FOLDER SHOTS_FOLDER LABEL [LABEL ...]

opens the project in Scipion's own window and, for the run of each label, selects it and opens its form,
'Analyze results' and every button of its viewer. After each act it keeps a picture of the screen and the
titles and places of the visible windows (report.json).
"""
import json
import os
import subprocess
import sys
import tkinter as tk
import traceback
from tkinter import ttk

#: before a picture, after closing windows, for the project window
WAIT_MS, SHORT_MS, START_MS = 1200, 300, 4000


class Driver:
    """Acts on a project window one after the other, from within its event loop (Scipion's windows nest their
    loops)."""

    def __init__(self, window, shots):
        self.window, self.shots, self.report, self.forms = window, shots, [], []
        self.view = window.viewWidget
        self.acts = []

    def start(self, labels):
        runs = {run.getObjLabel(): run for run in self.window.project.getRuns()}
        self.acts.append(("project", self.nothing))
        for label in labels:
            self.acts += [("%s, selected" % label, lambda run=runs[label]: self.select(run)),
                          ("%s, form" % label, lambda run=runs[label]: self.open_form(run)),
                          (None, self.close_all),
                          ("%s, viewer" % label, lambda run=runs[label]: self.analyze(run)),
                          (None, self.press_all(label))]
        self.window.root.after(START_MS, self.step)

    def step(self):
        """Do the next act; when the event loop comes back, look at the screen and go on."""
        if not self.acts:
            return self.finish()
        name, act = self.acts.pop(0)
        self.window.root.after(WAIT_MS if name else SHORT_MS, lambda: self.look(name))
        act()

    def look(self, name):
        if name:
            self.window.root.update()
            path = os.path.join(self.shots, "%02d %s.png" % (len(self.report), name))
            subprocess.run(["import", "-window", "root", path], check=True)
            places = visible_windows()
            self.report.append(dict(name=name, shot=path, windows=sorted(places), places=places))
        # not at once: a message box must have come back from waiting to be seen
        self.window.root.after(200, self.step)

    def nothing(self):
        pass

    def select(self, run):
        self.view._selectItemProtocol(run)

    def open_form(self, run):
        self.select(run)
        self.view._editProtocol(run)

    def analyze(self, run):
        self.select(run)
        self.view.btnAnalyze.event_generate("<Button-1>")

    def press_all(self, label):
        """An act that puts one act per button of the open viewer, and its closing, before the remaining
        ones."""
        def plan():
            form, acts = self.forms[-1], []
            for tab in range(1, len(self.tabs(form))):
                acts.append(("%s, viewer, tab %d" % (label, tab + 1),
                             lambda tab=tab: self.show_tab(form, tab)))
            for name in form.visualizeDict:
                acts += [("%s, %s" % (label, name), lambda name=name: self.press(form, name)),
                         (None, self.close_pictures)]
            self.acts[:0] = acts + [(None, self.close_all)]
        return plan

    @staticmethod
    def press(form, name):
        """Press the eye beside a field: the first of its buttons."""
        form.widgetDict[name].btnFrame.winfo_children()[0].invoke()

    @staticmethod
    def tabs(form):
        found = [child for child in descendants(form.root) if isinstance(child, ttk.Notebook)]
        return found[0].tabs() if found else ()

    @staticmethod
    def show_tab(form, tab):
        next(child for child in descendants(form.root) if isinstance(child, ttk.Notebook)).select(tab)

    def close_pictures(self):
        """Close plots and message boxes, and leave forms open."""
        import matplotlib.pyplot as plt
        plt.close("all")
        kept = [form.root for form in self.forms]
        for child in self.window.root.winfo_children() + [inner for root in kept
                                                          for inner in root.winfo_children()]:
            if isinstance(child, tk.Toplevel) and child not in kept:
                child.destroy()

    def close_all(self):
        self.close_pictures()
        for form in self.forms:
            form.root.destroy()
        self.forms.clear()

    def failed(self, *error):
        self.report.append(dict(name="error", error="".join(traceback.format_exception(*error))))
        self.finish()

    def finish(self):
        with open(os.path.join(self.shots, "report.json"), "w", encoding="utf-8") as file:
            json.dump(self.report, file, indent=1)
        sys.stdout.flush()
        os._exit(0)     # Scipion's nested event loops do not end otherwise


def visible_windows():
    """Title of every visible window to the place of its inside on the screen: left, top, width, height."""
    def asked(*words):
        done = subprocess.run(["xdotool", *words], check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
        return done.stdout
    found = {}
    for window in asked("search", "--onlyvisible", "--name", "..").split():
        place = dict(line.split("=") for line in asked("getwindowgeometry", "--shell", window).split())
        if place:       # it may have closed meanwhile
            title = asked("getwindowname", window).rstrip("\n")
            found[title] = [int(place[name]) for name in ("X", "Y", "WIDTH", "HEIGHT")]
    return found


def descendants(widget):
    """All widgets below a widget."""
    for child in widget.winfo_children():
        yield child
        yield from descendants(child)


def main(project, shots, labels):
    from pyworkflow.gui.project import ProjectWindow
    from pyworkflow.gui.project.viewprotocols import FormWindow
    window = ProjectWindow(project)
    driver = Driver(window, shots)
    tk.Tk.report_callback_exception = driver.failed
    show = FormWindow.show

    def remembered(self, *args, **options):
        driver.forms.append(self)
        return show(self, *args, **options)
    FormWindow.show = remembered
    driver.start(labels)
    window.show()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
