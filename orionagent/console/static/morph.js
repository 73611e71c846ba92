// Owns bringing what is shown up to date in place: focus, selection, hover and scroll positions stay.
//
// An element that is kept keeps its listeners too, so these must depend on nothing but its `data-key`. What cannot
// promise that (a chart that follows the pointer) says `data-whole` and is replaced, though not under the pointer.

const keyOf = (node) => node.dataset?.key;

function refresh(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.hasAttribute("data-whole")) {
    if (!old.matches(":hover")) old.replaceWith(fresh);
    return;
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) === value) continue;
    // The page's policy forbids styles written as text, and rightly so.
    if (name === "style") old.style.cssText = fresh.style.cssText;
    else old.setAttribute(name, value);
  }
  for (const name of old.getAttributeNames()) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  // A list that somebody may have open stays as it is.
  if (old.nodeName !== "SELECT") update(old, ...fresh.childNodes);
}

export function update(parent, ...children) {
  const fresh = children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
  const wanted = new Set(fresh.map(keyOf));
  const kept = new Map([...parent.children].map((child) => [keyOf(child), child]));
  let at = parent.firstChild;
  for (const next of fresh) {
    while (at && keyOf(at) !== undefined && !wanted.has(keyOf(at))) { const gone = at; at = at.nextSibling; gone.remove(); }
    const same = keyOf(next) === undefined ? at : kept.get(keyOf(next));
    if (!same || same.nodeName !== next.nodeName || keyOf(same) !== keyOf(next)) { parent.insertBefore(next, at); continue; }
    if (same === at) at = at.nextSibling;
    else parent.insertBefore(same, at);
    refresh(same, next);
  }
  while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
}
