// Texts that are too faint on what they stand on, by the rule of WCAG 2.2 AA: 4.5 to 1, large ones 3 to 1.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((one, i) => one * a + below[i] * (1 - a));
  const ground = (node) => {
    const colour = rgba(getComputedStyle(node).backgroundColor);
    if (colour[3] === 1) return colour.slice(0, 3);
    return over(colour, node.parentElement ? ground(node.parentElement) : [255, 255, 255]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const faint = [];
  let looked = 0;
  for (const node of document.body.querySelectorAll("*")) {
    const says = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim() !== "");
    if (!says || node.closest(":disabled, .unseen, script, noscript, option") || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    let shown = 1;
    for (let up = node; up; up = up.parentElement) shown *= Number(getComputedStyle(up).opacity);
    const below = ground(node);
    const [r, g, b, a] = rgba(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = ratio(over([r, g, b, a * shown], below), below);
    looked += 1;
    if (found < (large ? 3 : 4.5)) faint.push(`${node.tagName} ${node.className?.baseVal ?? node.className}: ${node.textContent.trim().slice(0, 30)} has ${found.toFixed(2)}`);
  }
  return looked > 20 ? [...new Set(faint)] : [`only ${looked} texts are seen`];
})()
