"""Whether a figure can be read."""

from itertools import combinations


def overlaps(figure):
    """Pairs of visible texts of a figure with less than two pixels between them.

    Labels must not have their room at the cost of the panels either.
    """
    figure.canvas.draw()
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert all(min(ax.bbox.width, ax.bbox.height) > 150 for ax in panels)
    texts = []
    legends = list(figure.legends)
    for ax in figure.axes:
        texts += [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]
        texts += visible_tick_labels(ax.xaxis, ax.viewLim.intervalx)
        texts += visible_tick_labels(ax.yaxis, ax.viewLim.intervaly)
        if ax.get_legend():
            legends.append(ax.get_legend())
    texts += [text for legend in legends for text in legend.get_texts()]
    renderer = figure.canvas.get_renderer()
    boxes = [
        (text.get_text(), text.get_window_extent(renderer).padded(1))
        for text in texts
        if text.get_visible() and text.get_text().strip()
    ]
    assert len(boxes) > 5
    return [(a[0], b[0]) for a, b in combinations(boxes, 2) if a[1].overlaps(b[1])]


def visible_tick_labels(axis, interval):
    low, high = sorted(interval)
    slack = 1e-9 * (high - low)
    ticks = [
        tick for tick in axis.get_major_ticks() if low - slack <= tick.get_loc() <= high + slack
    ]
    return [tick.label1 for tick in ticks if tick.label1.get_visible()]
