// Elements. Text is always text: nothing here reads HTML.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | undefined | ((event: Event) => void)>;

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick`), and children. */
export function h<K extends keyof HTMLElementTagNameMap>(name: K, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  return fill(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function svg<K extends keyof SVGElementTagNameMap>(name: K, attributes: Attributes = {}, ...children: Child[]): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, name) as SVGElementTagNameMap[K], attributes, children);
}

function fill<E extends Element>(element: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child): child is Node | string => child !== null && child !== undefined && child !== false));
  return element;
}

/** A list of marks: the class of each, which gives its looks, and its meaning. */
export const marks = (all: [string, string][]): HTMLUListElement => h("ul", { class: "legend" }, ...all.map(([mark, words]) => h("li", {}, h("span", { class: `swatch ${mark}` }), words)));

/** Words in which the parts between backticks are code. */
export const coded = (text: string): Child[] => text.split(/`([^`]+)`/).map((part, at) => (at % 2 === 1 ? h("code", {}, part) : part));

/** A button. */
export function button(text: string, act: () => void, attributes: Attributes = {}): HTMLButtonElement {
  return h("button", { type: "button", ...attributes, onclick: act }, text);
}

/** A choice with its label. */
export function choice(label: string, options: [string, string][], value: string, pick: (value: string) => void): HTMLLabelElement {
  const select = h("select", { onchange: () => pick(select.value) }, ...options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  return h("label", { class: "choice" }, h("span", {}, label), select);
}

/** Shows another option of a choice, without picking it. */
export function showChoice(label: HTMLLabelElement, value: string): void {
  const select = label.querySelector("select");
  if (select) select.value = value;
}

/** Offers a text as a file. */
function download(name: string, text: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const TYPES = { SVG: "image/svg+xml", CSV: "text/csv" };

/** The command that made something, and the files that it can be kept as. */
export function source(command: string, name: string, files: Partial<Record<keyof typeof TYPES, () => string>>): HTMLElement {
  const offer = (kind: keyof typeof TYPES) => {
    const text = files[kind];
    return text ? [" ", button(kind, () => download(`${name}.${kind.toLowerCase()}`, text(), TYPES[kind]))] : [];
  };
  return h("p", { class: "source" }, h("code", {}, command), ...offer("SVG"), ...offer("CSV"));
}
