// Colours of lines, chosen so that people with any of the three kinds of colour-blindness can tell them apart, with a contrast of 3 to 1 at least on
// either background. A test simulates that.

export const LIGHT = ["#0033ff", "#bf6e1d", "#0d591d", "#8c1551", "#1998a6", "#c761f2", "#998e63", "#7e42a6"];
export const DARK = ["#00ffe5", "#cc6600", "#eda6ff", "#a1e600", "#ae5ce6", "#d9d98d", "#42a69c", "#6a8c5b"];
