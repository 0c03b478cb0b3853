// The menu of qualities: the page's own choice, or the height of the pictures that the viewer prefers.

const AUTO = 'auto';

export class Quality {
  #menu;
  #video;
  #choice;
  #offered = '';

  /// `menu` is the `<select>`, `choice` the player's choice of the variant.
  constructor(menu, video, choice) {
    this.#menu = menu;
    this.#video = video;
    this.#choice = choice;
    menu.onchange = () => choice.choose(menu.value === AUTO ? null : Number(menu.value));
    video.addEventListener('resize', () => this.refresh());
  }

  /// Offers the heights that the stream has now; nothing if there is one only.
  refresh() {
    const { heights, height } = this.#choice;
    const menu = this.#menu;
    menu.hidden = heights.length === 0;
    if (heights.join() !== this.#offered) {
      this.#offered = heights.join();
      menu.replaceChildren(new Option('Auto', AUTO), ...heights.map((one) => new Option(`${one}p`, one)));
    }
    menu.value = String(heights.includes(height) ? height : AUTO);
    const shown = this.#video.videoHeight;
    const auto = menu.options[0];
    const text = height === null && heights.includes(shown) ? `Auto (${shown}p)` : 'Auto';
    if (auto && auto.text !== text) auto.text = text;
  }
}
