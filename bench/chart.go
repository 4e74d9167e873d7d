package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// chart is a plot of lines, written as SVG.
type chart struct {
	title, x, y string
	logX, logY  bool
	ticksX      []tick // all of them; none: those that fit
	lines       []line
}

type tick struct {
	at    float64
	label string
}

type line struct {
	name string
	x, y []float64
	low  []float64 // where both are there, whiskers
	high []float64
	ours bool
}

const (
	chartWidth, chartHeight = 860.0, 430.0
	left, right             = 80.0, 240.0 // of the plot; the names are on its right
	top, bottom             = 46.0, 52.0
)

// palette is of colours that differ for most eyes, and dashes for when there are more lines than those.
var palette = []string{
	"#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf", "#ff7f0e",
}

// axis is the range of one axis.
type axis struct {
	min, max float64
	log      bool
}

func newAxis(values []float64, log bool) axis {
	a := axis{min: slices.Min(values), max: slices.Max(values), log: log}
	if !log {
		a.min = 0
		if a.max *= 1.05; a.max == 0 {
			a.max = 1
		}
	} else if a.min == a.max {
		a.min, a.max = a.min/2, a.max*2
	}
	return a
}

// share is where a value lies, from 0 to 1.
func (a axis) share(v float64) float64 {
	if a.log {
		return math.Log(v/a.min) / math.Log(a.max/a.min)
	}
	return (v - a.min) / (a.max - a.min)
}

func (a axis) ticks() (ticks []tick) {
	if a.log {
		few := a.max/a.min > 1e3
		for e := math.Floor(math.Log10(a.min)); e <= math.Log10(a.max)+1; e++ {
			for _, m := range []float64{1, 2, 5} {
				v := m * math.Pow(10, e)
				if v >= a.min*0.999 && v <= a.max*1.001 && (m == 1 || !few) {
					ticks = append(ticks, tick{v, short(v)})
				}
			}
		}
		return ticks
	}
	step := math.Pow(10, math.Floor(math.Log10(a.max-a.min)))
	if (a.max-a.min)/step < 3 {
		step /= 2
	}
	for v := 0.0; v <= a.max; v += step {
		if v >= a.min {
			ticks = append(ticks, tick{v, short(v)})
		}
	}
	return ticks
}

// short is a number as one would say it.
func short(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e6, " M"}, {1e3, " k"}} {
		if math.Abs(v) >= unit.size {
			return fmt.Sprintf("%.3g%s", v/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%.3g", v)
}

func (c chart) svg() []byte {
	var xs, ys []float64
	for _, l := range c.lines {
		xs, ys = slices.Concat(xs, l.x), slices.Concat(ys, l.y, l.low, l.high)
	}
	if len(xs) == 0 {
		return nil
	}
	x, y := newAxis(xs, c.logX), newAxis(ys, c.logY)
	if !c.logX {
		x.max = slices.Max(xs)
	}
	px := func(v float64) float64 { return left + x.share(v)*(chartWidth-left-right) }
	py := func(v float64) float64 { return chartHeight - bottom - y.share(v)*(chartHeight-top-bottom) }
	var b strings.Builder
	text := func(x, y float64, anchor, style, s string) {
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>%s</text>\n",
			x, y, anchor, style, html.EscapeString(s))
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
`, chartWidth, chartHeight)
	text(left, 24, "start", `font-size="15" font-weight="bold"`, c.title)
	text((left+chartWidth-right)/2, chartHeight-14, "middle", "", c.x)
	text(-(top+chartHeight-bottom)/2, 18, "middle", `transform="rotate(-90)"`, c.y)
	ticks := c.ticksX
	if ticks == nil {
		ticks = x.ticks()
	}
	for _, t := range ticks {
		fmt.Fprintf(&b, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#eee\"/>\n", px(t.at), top, chartHeight-bottom)
		text(px(t.at), chartHeight-bottom+18, "middle", "", t.label)
	}
	for _, t := range y.ticks() {
		fmt.Fprintf(&b, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/>\n", left, py(t.at), chartWidth-right)
		text(left-8, py(t.at)+4, "end", "", t.label)
	}
	labels := c.labels(py)
	for i, l := range c.lines {
		colour, width, dash := palette[i%len(palette)], 1.5, ""
		if l.ours {
			width = 3
		}
		if i >= len(palette) {
			dash = ` stroke-dasharray="5 3"`
		}
		var path strings.Builder
		for k := range l.x {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(k, 1)], px(l.x[k]), py(l.y[k]))
			fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\"/>\n",
				px(l.x[k]), py(l.y[k]), width+1, colour)
			if len(l.low) > k && len(l.high) > k {
				fmt.Fprintf(&b, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"%s\"/>\n",
					px(l.x[k]), py(l.low[k]), py(l.high[k]), colour)
			}
		}
		fmt.Fprintf(&b, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"%.1f\"%s/>\n",
			path.String(), colour, width, dash)
		last := len(l.x) - 1
		fmt.Fprintf(&b, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\" opacity=\".4\"/>\n",
			px(l.x[last])+4, py(l.y[last]), chartWidth-right+18, labels[i], colour)
		text(chartWidth-right+22, labels[i]+4, "start", `fill="`+colour+`"`, l.name)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// labels are the heights of the lines' names: at their ends, and apart.
func (c chart) labels(py func(float64) float64) []float64 {
	const apart = 15
	order := make([]int, len(c.lines))
	heights := make([]float64, len(c.lines))
	for i, l := range c.lines {
		order[i], heights[i] = i, py(l.y[len(l.y)-1])
	}
	slices.SortFunc(order, func(a, b int) int { return int(math.Copysign(1, heights[a]-heights[b])) })
	for k := 1; k < len(order); k++ {
		heights[order[k]] = max(heights[order[k]], heights[order[k-1]]+apart)
	}
	for over, k := heights[order[len(order)-1]]-(chartHeight-bottom), len(order)-1; over > 0 && k >= 0; k-- {
		heights[order[k]] -= over
		if k > 0 {
			over = heights[order[k-1]] + apart - heights[order[k]]
		}
	}
	return heights
}
