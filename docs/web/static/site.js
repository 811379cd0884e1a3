// What the theme leaves out for those who use keys and screen readers.
"use strict";
addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll("p.caption[role=heading]")) {
    caption.setAttribute("aria-level", "2");
  }
  // Code and tables that are wider than the page can be scrolled by keys.
  const look = () => {
    const parts = "article :is(pre, table, .table-wrapper, .text_html, .formula, .highlight)";
    for (const part of document.querySelectorAll(parts)) {
      const isWide = part.scrollWidth > part.clientWidth;
      if (isWide || part.scrollHeight > part.clientHeight) part.tabIndex = 0;
    }
  };
  look();
  addEventListener("resize", look);
});
