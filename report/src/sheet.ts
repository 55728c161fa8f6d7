// Drawings as files: an SVG that stands by itself, and a pen that fills it.

import { ink } from "./colors";
import { svg } from "./dom";

/** The room around a drawing, and above it for its title. */
const [MARGIN, TITLE] = [8, 28];

/** Draws on a canvas, or into a file. */
export type Pen = Pick<CanvasRenderingContext2D, "fillStyle" | "strokeStyle" | "lineWidth" | "globalAlpha" | "font" | "textAlign" | "textBaseline" | "fillRect" | "strokeRect" | "fillText">;

/** A drawing with its title above it, in the colours of the page, as the text of a file. */
export function sheet(width: number, height: number, title: string, drawing: SVGElement): string {
  const [wide, high] = [width + 2 * MARGIN, height + TITLE + MARGIN];
  const root = svg("svg", { viewBox: `${-MARGIN} ${-TITLE} ${wide} ${high}`, width: wide, height: high, "font-size": 11, "font-family": "sans-serif" });
  root.append(svg("rect", { x: -MARGIN, y: -TITLE, width: wide, height: high, fill: ink("page") }), svg("text", { y: -10, "font-size": 12, fill: ink("text") }, title), drawing);
  return new XMLSerializer().serializeToString(root);
}

/** What a canvas would show, as elements of SVG. */
export class SvgPen implements Pen {
  fillStyle: Pen["fillStyle"] = "#000";
  strokeStyle: Pen["strokeStyle"] = "#000";
  lineWidth = 1;
  globalAlpha = 1;
  font = "";
  textAlign: CanvasTextAlign = "left";
  textBaseline: CanvasTextBaseline = "middle";

  constructor(private readonly goal: SVGElement) {}

  fillRect(x: number, y: number, width: number, height: number): void {
    this.box(x, y, width, height, { fill: String(this.fillStyle), opacity: this.globalAlpha === 1 ? undefined : this.globalAlpha.toFixed(2) });
  }

  strokeRect(x: number, y: number, width: number, height: number): void {
    this.box(x, y, width, height, { fill: "none", stroke: String(this.strokeStyle), "stroke-width": this.lineWidth });
  }

  fillText(words: string, x: number, y: number): void {
    const anchor = { center: "middle", right: "end", end: "end", left: "start", start: "start" }[this.textAlign];
    this.goal.append(svg("text", { x: x.toFixed(2), y: y.toFixed(2), dy: "0.35em", "text-anchor": anchor, fill: String(this.fillStyle) }, words));
  }

  private box(x: number, y: number, width: number, height: number, look: Record<string, string | number | undefined>): void {
    const [left, top, wide, high] = [x, y, width, height].map((length) => Number(length.toFixed(2)));
    this.goal.append(svg("rect", { x: left, y: top, width: wide, height: high, ...look }));
  }
}
