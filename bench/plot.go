package bench

import (
	"fmt"
	"math"
	"slices"

	"github.com/go-analyze/charts"
)

// Line is one line, or one colour of bars, in a plot.
type Line struct {
	Name   string
	Values []float64 // NaN: nothing there
}

// The sizes of plots, in pixels.
const (
	plotWidth  = 560
	plotHeight = 300
	barHeight  = 22
)

// palette are the colours of lines: told apart by eyes of all kinds, on white.
var palette = []charts.Color{
	charts.ParseColor("#0b6e99"), charts.ParseColor("#d9730d"), charts.ParseColor("#6b7280"),
	charts.ParseColor("#7b3fa0"), charts.ParseColor("#2e7d32"), charts.ParseColor("#b3261e"),
}

var theme = charts.MakeTheme(charts.ThemeOption{
	AxisStrokeColor: charts.ParseColor("#9ca3af"), AxisSplitLineColor: charts.ParseColor("#e5e7eb"),
	BackgroundColor: charts.ParseColor("#ffffff"), TextColor: charts.ParseColor("#374151"), SeriesColors: palette,
})

var plotFont = charts.FontStyle{FontSize: 9}

func painter(height int) *charts.Painter {
	return charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: plotWidth, Height: height, Theme: theme})
}

// names are those of lines, for the legend; one line needs none.
func legendOf(lines []Line) charts.LegendOption {
	o := charts.LegendOption{FontStyle: plotFont, Show: charts.Ptr(len(lines) > 1)}
	for _, l := range lines {
		o.SeriesNames = append(o.SeriesNames, l.Name)
	}
	return o
}

// Lines is a plot of lines over labels, as SVG. With log the axis has a step for each power of
// ten.
func Lines(labels []string, lines []Line, unit string, log bool) ([]byte, error) {
	values := make([][]float64, len(lines))
	low, high := math.Inf(1), math.Inf(-1)
	for i, l := range lines {
		for _, v := range l.Values {
			switch {
			case math.IsNaN(v) || log && v <= 0:
				v = charts.GetNullValue()
			case log:
				v = math.Log10(v)
				fallthrough
			default:
				low, high = min(low, v), max(high, v)
			}
			values[i] = append(values[i], v)
		}
	}
	if math.IsInf(low, 1) {
		return nil, ErrNothing
	}
	o := charts.NewLineChartOptionWithData(values)
	o.Theme, o.Legend, o.LineStrokeWidth = theme, legendOf(lines), 1.8
	o.Padding = charts.NewBoxEqual(10)
	o.XAxis.Labels, o.XAxis.LabelFontStyle = labels, plotFont
	y := &o.YAxis[0]
	y.LabelFontStyle = plotFont
	suffix := ""
	if unit != "" {
		suffix = " " + unit
	}
	if log {
		bottom, top := math.Floor(low), math.Ceil(high)
		if top == bottom {
			top++
		}
		y.Min, y.Max, y.LabelCount = &bottom, &top, int(top-bottom)+1
		o.ValueFormatter = func(v float64) string { return power(v) + suffix }
	} else {
		y.Min, y.Max, y.LabelCount = charts.Ptr(0.0), charts.Ptr(roundUp(high)), axisSteps+1
		o.ValueFormatter = func(v float64) string { return axisNumber(v) + suffix }
	}
	if len(labels) > 20 {
		o.Symbol.Shape = charts.SymbolNone
		o.XAxis.LabelCount = 6
	}
	p := painter(plotHeight)
	if err := p.LineChart(o); err != nil {
		return nil, err
	}
	return p.Bytes()
}

// Bars is a plot of horizontal bars with their values, as SVG: a group for each label, from
// top to bottom. What their unit is stands elsewhere.
func Bars(labels []string, lines []Line) ([]byte, error) {
	most := 0.0
	labels = slices.Clone(labels)
	slices.Reverse(labels)
	list := make(charts.BarSeriesList, len(lines))
	for i, l := range lines {
		values := slices.Clone(l.Values)
		slices.Reverse(values)
		for k, v := range values {
			if math.IsNaN(v) {
				values[k] = charts.GetNullValue()
				continue
			}
			most = max(most, v)
		}
		list[i] = charts.BarSeries{Name: l.Name, Values: values, Label: charts.SeriesLabel{
			Show: charts.Ptr(true), FontStyle: plotFont, ValueFormatter: axisNumber,
		}}
	}
	if len(labels) == 0 {
		return nil, ErrNothing
	}
	o := charts.NewBarChartOptionWithSeries(list)
	o.Horizontal, o.Theme, o.Legend = true, theme, legendOf(lines)
	o.Padding = charts.Box{Left: 10, Top: 10, Right: 40, Bottom: 10, IsSet: true}
	o.CategoryAxis.Labels, o.CategoryAxis.LabelFontStyle = labels, plotFont
	o.CategoryAxis.LabelOffset = charts.OffsetInt{Left: -6}
	axis := &o.ValueAxis[0]
	axis.Min, axis.Max, axis.LabelCount = charts.Ptr(0.0), charts.Ptr(roundUp(most)), axisSteps+1
	axis.LabelFontStyle = plotFont
	o.ValueFormatter = axisNumber
	p := painter(90 + barHeight*len(labels)*max(len(lines), 1))
	if err := p.BarChart(o); err != nil {
		return nil, err
	}
	return p.Bytes()
}

// axisSteps is how many steps an axis has.
const axisSteps = 5

// roundUp is the end of an axis of round steps on which v has room.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	step := v * 1.04 / axisSteps
	ten := math.Pow(10, math.Floor(math.Log10(step)))
	for _, round := range []float64{1, 2, 2.5, 4, 5} {
		if step <= round*ten {
			return axisSteps * round * ten
		}
	}
	return axisSteps * 10 * ten
}

// axisNumber is a number for an axis.
func axisNumber(v float64) string {
	for _, u := range []struct {
		unit string
		of   float64
	}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
		if math.Abs(v) >= u.of {
			return trim(v/u.of) + " " + u.unit
		}
	}
	return trim(v)
}

func trim(v float64) string {
	if math.Abs(v) >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// power is ten to the v.
func power(v float64) string { return fmt.Sprintf("%g", math.Pow(10, math.Round(v))) }
