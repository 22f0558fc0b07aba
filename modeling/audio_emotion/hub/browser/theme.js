// SPDX-License-Identifier: Apache-2.0
// Runs before the page is drawn, so that it does not flash in the other theme.

try {
  const chosen = localStorage.getItem("audio-emotion-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is blocked: the theme is that of the system.
}
